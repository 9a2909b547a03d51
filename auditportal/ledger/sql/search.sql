-- Pending entries are flushed by the sealer (gin_clean_pending_list), so that inserts stay cheap and searches exact.
CREATE INDEX event_text_words ON ledger_eventtext USING gin (words) WITH (fastupdate = on);
