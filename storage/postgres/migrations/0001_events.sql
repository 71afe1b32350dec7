-- Streams and their events, for people and programs that ask in SQL.
--
-- Two things fill these tables, never both in one schema (`store.kind`): a repository appends to them
-- directly; a node of a cluster copies what its log has committed (0002_log.sql) and nothing else.
--
-- Everything is created in the first schema of the search path. The number of partitions comes from the
-- setting `allsource.partitions`, so this runs in psql as well, after: SET allsource.partitions = 32;

CREATE TABLE store (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    log_format  integer NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('repository', 'node')),
    partitions  integer NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    cluster_id  text NOT NULL,
    node_id     text NOT NULL,
    replica_id  text NOT NULL,
    incarnation bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE store IS 'Whose schema this is: one row.';
COMMENT ON COLUMN store.log_format IS 'The format of what is stored (storage/model/entry.py).';

CREATE TABLE partitions (
    partition_id      integer PRIMARY KEY CHECK (partition_id >= 0),
    last_position     bigint NOT NULL DEFAULT 0 CHECK (last_position >= 0),
    last_timestamp_us bigint NOT NULL DEFAULT 0,
    log_index         bigint NOT NULL DEFAULT 0 CHECK (log_index >= 0)
) WITH (fillfactor = 25);
COMMENT ON TABLE partitions IS
    'Where each partition ends. An append locks its row until it commits, so that positions have no gap '
    'and become visible in order.';
COMMENT ON COLUMN partitions.log_index IS 'Up to where a node has copied its log; 0 in a repository.';

INSERT INTO partitions (partition_id)
SELECT generate_series(0, current_setting('allsource.partitions')::integer - 1);

CREATE TABLE event_streams (
    stream_id        text COLLATE "C" PRIMARY KEY,
    partition_id     integer NOT NULL,
    current_version  bigint NOT NULL DEFAULT 0 CHECK (current_version >= 0),
    watermark        bigint NOT NULL DEFAULT 0 CHECK (watermark >= 0),
    expected_version bigint,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_streams_watermark_within_version CHECK (watermark <= current_version)
) WITH (fillfactor = 80);
COMMENT ON COLUMN event_streams.watermark IS 'The version up to which events are committed.';
COMMENT ON COLUMN event_streams.expected_version IS
    'The version that the newest append expected; NULL if it expected none.';

DO $$
BEGIN
    EXECUTE format(
        'ALTER TABLE event_streams ADD CONSTRAINT event_streams_partition_in_range '
        'CHECK (partition_id >= 0 AND partition_id < %s)',
        current_setting('allsource.partitions')::integer);
END
$$;

CREATE TABLE events (
    id              uuid NOT NULL,
    stream_id       text COLLATE "C" NOT NULL REFERENCES event_streams (stream_id),
    version         bigint NOT NULL CHECK (version > 0),
    partition_id    integer NOT NULL,
    position        bigint NOT NULL CHECK (position > 0),
    tag             text COLLATE "C",
    tag_number      bigint CHECK (tag_number > 0),
    tenant_id       text GENERATED ALWAYS AS (coalesce(left(metadata ->> 'tenant_id', 128), 'default')) STORED,
    event_type      text NOT NULL,
    entity_id       text COLLATE "C" GENERATED ALWAYS AS (stream_id) STORED,
    payload         jsonb,
    metadata        jsonb,
    timestamp       timestamptz NOT NULL,
    encoding        smallint NOT NULL CHECK (encoding IN (0, 1)),
    data            bytea NOT NULL,
    metadata_bytes  bytea NOT NULL,
    append_position bigint NOT NULL,
    part_count      integer CHECK (part_count > 0),
    PRIMARY KEY (partition_id, position),
    CONSTRAINT events_stream_version UNIQUE (stream_id, version),
    CONSTRAINT events_tag_is_numbered CHECK ((tag IS NULL) = (tag_number IS NULL))
);
COMMENT ON COLUMN events.tag IS 'The {tag} in the stream''s id; NULL without one.';
COMMENT ON COLUMN events.tag_number IS
    'Counts from 1 over all streams with the tag, without gaps: their total order.';
COMMENT ON COLUMN events.payload IS
    'The data as JSONB; NULL if it is binary, or JSON that JSONB cannot hold (a \u0000, for instance).';
COMMENT ON COLUMN events.data IS 'The data exactly as it was appended; encoding 0 is JSON, 1 is binary.';
COMMENT ON COLUMN events.metadata IS 'The metadata as JSONB, NULL if there is none or it is not JSON.';
COMMENT ON COLUMN events.tenant_id IS 'What the metadata call "tenant_id", else "default".';
COMMENT ON COLUMN events.append_position IS 'Position of the first event of the append that this came with.';
COMMENT ON COLUMN events.part_count IS
    'On the first event that an append adds to a stream: how many it adds. NULL on the others.';

-- A retry is known by the first event id for each stream (idempotency, for ever).
CREATE UNIQUE INDEX events_first_ids ON events (partition_id, id) WHERE part_count IS NOT NULL;

-- The total order of a tag, and what makes a number unique in it.
CREATE UNIQUE INDEX events_by_tag ON events (tag, tag_number) WHERE tag IS NOT NULL;

-- (stream, version) and stream alone are served by the unique constraint above.
CREATE INDEX events_by_tenant ON events (tenant_id, timestamp);
CREATE INDEX events_by_entity ON events (entity_id, timestamp);
CREATE INDEX events_by_type ON events (event_type, partition_id, position);
CREATE INDEX events_by_time ON events (timestamp);
CREATE INDEX event_streams_by_partition ON event_streams (partition_id, stream_id);
CREATE INDEX event_streams_active ON event_streams (updated_at) WHERE current_version > 0;

CREATE TABLE marks (
    partition_id    integer NOT NULL,
    name            text COLLATE "C" NOT NULL,
    position        bigint NOT NULL CHECK (position >= 0),
    generation      bigint NOT NULL CHECK (generation >= 0),
    append_position bigint NOT NULL,
    PRIMARY KEY (partition_id, name)
) WITH (fillfactor = 50);
COMMENT ON TABLE marks IS
    'Named numbers of a partition, moved by appends: never back, and only by the newest generation.';
COMMENT ON COLUMN marks.append_position IS
    'Where the append that moved it last has its first event, or would have it.';

-- The bytes as JSONB, or NULL where they are none: a strange event must not stop the others.
CREATE FUNCTION try_jsonb(bytes bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF length(bytes) = 0 THEN
        RETURN NULL;
    END IF;
    RETURN convert_from(bytes, 'UTF8')::jsonb;
EXCEPTION
    WHEN data_exception OR program_limit_exceeded THEN
        RETURN NULL;
END
$$;

CREATE FUNCTION keep_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- Who says a time (a node copies its log's) is believed; a change that says none happened now.
    IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at);
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER event_streams_updated_at BEFORE UPDATE ON event_streams
FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION keep_updated_at();

-- Whether the stream's events are exactly the versions 1, 2, ... current_version; NULL: no such stream.
CREATE FUNCTION verify_stream_gapless(stream text) RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.current_version = count(e.version) AND s.current_version = coalesce(max(e.version), 0)
    FROM event_streams s LEFT JOIN events e ON e.stream_id = s.stream_id
    WHERE s.stream_id = stream COLLATE "C"
    GROUP BY s.stream_id, s.current_version;
END;

CREATE VIEW partition_stats AS
SELECT partition_id,
       count(*) AS stream_count,
       sum(current_version)::bigint AS total_events,
       avg(current_version) AS avg_events_per_stream,
       max(current_version) AS max_events_per_stream,
       min(updated_at) AS oldest_update,
       max(updated_at) AS newest_update
FROM event_streams
GROUP BY partition_id;

CREATE VIEW stream_health AS
SELECT s.stream_id,
       s.partition_id,
       s.current_version,
       s.watermark,
       coalesce(e.event_count, 0) AS event_count,
       s.current_version - coalesce(e.event_count, 0) AS gap_size,
       CASE
           WHEN s.current_version <> coalesce(e.event_count, 0)
                OR s.current_version <> coalesce(e.last_version, 0) THEN 'GAPS'
           WHEN s.current_version = 0 THEN 'EMPTY'
           WHEN s.watermark < s.current_version THEN 'UNCOMMITTED'
           ELSE 'HEALTHY'
       END AS health_status
FROM event_streams s
LEFT JOIN (
    SELECT stream_id, count(*) AS event_count, max(version) AS last_version
    FROM events
    GROUP BY stream_id
) e ON e.stream_id = s.stream_id;
