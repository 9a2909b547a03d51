-- What ledger_rollup holds, told anew from the search rows (projections.rollup_keys): filled by a migration, and compared
-- by every verification.
WITH hourly AS (
  SELECT v.dimension, v.value, date_trunc('hour', e.timestamp, 'UTC') AS start,
         count(*) AS count, count(*) FILTER (WHERE e.outcome <> 'done') AS not_done
  FROM ledger_event e CROSS JOIN LATERAL (
    VALUES ('', ''), ('action', e.action), ('outcome', e.outcome), ('actor', e.actor), ('source', e.source),
           ('environment', e.environment)) v(dimension, value)
  WHERE v.dimension <> 'environment' OR v.value <> ''
  GROUP BY 1, 2, 3
)
SELECT dimension, value, 'hour' AS grain, start, count, not_done FROM hourly
UNION ALL
SELECT dimension, value, 'day', date_trunc('day', start, 'UTC'), sum(count)::bigint, sum(not_done)::bigint
FROM hourly GROUP BY 1, 2, 4
UNION ALL
SELECT dimension, value, 'all', to_timestamp(0), sum(count)::bigint, sum(not_done)::bigint FROM hourly GROUP BY 1, 2
