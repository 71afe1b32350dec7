-- A node's share of the replicated log: what `storage.interface` asks for, and nothing that people query.
--
-- What is here may not be committed by the cluster yet, and may be cut off again. Only what is committed
-- is copied to `events` and `event_streams`.

CREATE TABLE log (
    partition_id   integer NOT NULL,
    log_index      bigint NOT NULL CHECK (log_index > 0),
    term           bigint NOT NULL,
    kind           smallint NOT NULL,
    first_position bigint NOT NULL,
    event_count    integer NOT NULL,
    timestamp_us   bigint NOT NULL,
    opens_term     boolean NOT NULL,
    record         bytea NOT NULL,
    PRIMARY KEY (partition_id, log_index)
);
COMMENT ON COLUMN log.record IS 'The entry, as it is on every replica (storage/model/entry.py), its CRC included.';
COMMENT ON COLUMN log.opens_term IS 'Whether this is the first entry of its term.';

-- Payloads come as they are; compressing them again would cost the writer and their size is the point
-- of `octet_length` without reading them.
ALTER TABLE log ALTER COLUMN record SET STORAGE EXTERNAL;

CREATE INDEX log_terms ON log (partition_id, log_index) INCLUDE (term) WHERE opens_term;
CREATE INDEX log_configurations ON log (partition_id, log_index) WHERE kind = 3;
CREATE INDEX log_positions ON log (partition_id, first_position) WHERE event_count > 0;

-- Where the events of a stream and of a tag are, and by which first event id an append is known again: a row
-- for each part of each append. `ordinal` is the append's number in its entry, `part` the part's number over
-- all of the entry's appends. Heads follow from it: the newest part of a stream, or of a tag, is its head.
CREATE TABLE log_parts (
    partition_id     integer NOT NULL,
    stream_id        text COLLATE "C" NOT NULL,
    first_version    bigint NOT NULL,
    event_count      integer NOT NULL,
    log_index        bigint NOT NULL,
    ordinal          integer NOT NULL,
    part             integer NOT NULL,
    timestamp_us     bigint NOT NULL,
    first_id         bytea NOT NULL,
    tag              text COLLATE "C",
    first_tag_number bigint,
    PRIMARY KEY (partition_id, stream_id, first_version)
);
COMMENT ON COLUMN log_parts.tag IS 'The {tag} in the stream''s id, NULL without one.';
CREATE INDEX log_parts_by_id ON log_parts (partition_id, first_id);
CREATE INDEX log_parts_by_index ON log_parts (partition_id, log_index);
CREATE UNIQUE INDEX log_parts_by_tag ON log_parts (partition_id, tag, first_tag_number) WHERE tag IS NOT NULL;

-- Every move of every mark, because a mark is asked for as it was at the commit index.
CREATE TABLE log_marks (
    partition_id integer NOT NULL,
    name         text COLLATE "C" NOT NULL,
    log_index    bigint NOT NULL,
    ordinal      integer NOT NULL,
    position     bigint NOT NULL,
    generation   bigint NOT NULL,
    PRIMARY KEY (partition_id, name, log_index, ordinal)
);
CREATE INDEX log_marks_by_index ON log_marks (partition_id, log_index);

CREATE TABLE hard_states (
    partition_id integer PRIMARY KEY,
    term         bigint NOT NULL,
    vote         text NOT NULL,
    commit_index bigint NOT NULL
) WITH (fillfactor = 25);

CREATE TABLE meta (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- Everything that a node wrote since its last sync, in one statement and therefore in one transaction:
-- first the cuts, then what was appended. `incarnation` fences off a process that was replaced. Parts and marks
-- name their entry by its number among those of this call, from 1, and share what it says.
CREATE FUNCTION write_log(
    writer bigint,
    cut_partitions integer[], cut_indexes bigint[],
    partitions integer[], indexes bigint[], terms bigint[], kinds smallint[], positions bigint[],
    counts integer[], timestamps bigint[], opens boolean[], records bytea[],
    part_entries integer[], part_ordinals integer[], part_numbers integer[], part_streams text[],
    part_versions bigint[], part_counts integer[], part_ids bytea[], part_tags text[], part_tag_numbers bigint[],
    mark_entries integer[], mark_ordinals integer[], mark_names text[], mark_positions bigint[],
    mark_generations bigint[],
    hard_partitions integer[], hard_terms bigint[], hard_votes text[], hard_commits bigint[],
    meta_names text[], meta_values bytea[]
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT incarnation FROM store) <> writer THEN
        RAISE EXCEPTION 'another process has taken this schema over' USING ERRCODE = 'object_in_use';
    END IF;
    IF cardinality(cut_partitions) > 0 THEN
        DELETE FROM log l USING unnest(cut_partitions, cut_indexes) AS c (partition_id, first)
        WHERE l.partition_id = c.partition_id AND l.log_index >= c.first;
        DELETE FROM log_parts l USING unnest(cut_partitions, cut_indexes) AS c (partition_id, first)
        WHERE l.partition_id = c.partition_id AND l.log_index >= c.first;
        DELETE FROM log_marks l USING unnest(cut_partitions, cut_indexes) AS c (partition_id, first)
        WHERE l.partition_id = c.partition_id AND l.log_index >= c.first;
    END IF;
    IF cardinality(partitions) > 0 THEN
        INSERT INTO log
        SELECT * FROM unnest(
            partitions, indexes, terms, kinds, positions, counts, timestamps, opens, records);
    END IF;
    IF cardinality(part_entries) > 0 THEN
        INSERT INTO log_parts
        SELECT partitions[entry], stream, version, event_count, indexes[entry], ordinal, part,
               timestamps[entry], first_id, tag, tag_number
        FROM unnest(part_entries, part_ordinals, part_numbers, part_streams, part_versions, part_counts,
                    part_ids, part_tags, part_tag_numbers)
             AS p (entry, ordinal, part, stream, version, event_count, first_id, tag, tag_number);
    END IF;
    IF cardinality(mark_entries) > 0 THEN
        INSERT INTO log_marks
        SELECT partitions[entry], name, indexes[entry], ordinal, position, generation
        FROM unnest(mark_entries, mark_ordinals, mark_names, mark_positions, mark_generations)
             AS m (entry, ordinal, name, position, generation);
    END IF;
    IF cardinality(hard_partitions) > 0 THEN
        INSERT INTO hard_states
        SELECT * FROM unnest(hard_partitions, hard_terms, hard_votes, hard_commits)
        ON CONFLICT (partition_id) DO UPDATE
        SET term = excluded.term, vote = excluded.vote, commit_index = excluded.commit_index;
    END IF;
    IF cardinality(meta_names) > 0 THEN
        INSERT INTO meta
        SELECT * FROM unnest(meta_names, meta_values)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value;
    END IF;
END
$$;
