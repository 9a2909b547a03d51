-- What ledger_rollup holds, told anew from the search rows (projections.rollup_keys): filled by a migration, and compared
-- by every verification. Grouping sets, since they read and hash each row once for all dimensions.
WITH counted AS (
  SELECT CASE GROUPING(e.action, e.result, e.actor, e.source, e.environment)
           WHEN 31 THEN '' WHEN 15 THEN 'action' WHEN 23 THEN 'outcome' WHEN 27 THEN 'actor' WHEN 29 THEN 'source'
           ELSE 'environment' END AS dimension,
         coalesce(e.action, e.result, e.actor, e.source, e.environment, '') AS value, e.start,
         count(*) AS count, count(*) FILTER (WHERE e.outcome <> 'done') AS not_done
  FROM (SELECT date_trunc('hour', timestamp, 'UTC') AS start, action, outcome, outcome AS result, actor, source,
               environment FROM ledger_event) e
  GROUP BY GROUPING SETS ((e.start), (e.start, e.action), (e.start, e.result), (e.start, e.actor), (e.start, e.source),
                          (e.start, e.environment))
), hourly AS (
  SELECT * FROM counted WHERE dimension <> 'environment' OR value <> ''
)
SELECT dimension, value, 'hour' AS grain, start, count, not_done FROM hourly
UNION ALL
SELECT dimension, value, 'day', date_trunc('day', start, 'UTC'), sum(count)::bigint, sum(not_done)::bigint
FROM hourly GROUP BY 1, 2, 4
UNION ALL
SELECT dimension, value, 'all', to_timestamp(0), sum(count)::bigint, sum(not_done)::bigint FROM hourly GROUP BY 1, 2
