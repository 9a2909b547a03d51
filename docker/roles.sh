#!/bin/sh
# Run by the database image at its first start: the two roles, and the database that one owns and the other uses.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres <<SQL
CREATE ROLE auditportal_owner LOGIN PASSWORD '$OWNER_PASSWORD';
CREATE ROLE auditportal LOGIN PASSWORD '$APPLICATION_PASSWORD';
CREATE DATABASE auditportal OWNER auditportal_owner;
\c auditportal
ALTER SCHEMA public OWNER TO auditportal_owner;
SQL
