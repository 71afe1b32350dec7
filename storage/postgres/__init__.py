"""postgres: events in a PostgreSQL server, for those who want to ask for them in SQL.

What lives here
    migrations/   the schema, as plain SQL, version by version
    driver        asyncpg when it is wanted, and what its errors mean
    migrate       bringing a schema up to date, and refusing one that is not ours
"""
