-- What a repository's append asks before it decides, in one round trip: the partition's row is locked, and
-- what is read behind it is as new as the lock. (In a volatile function each statement has a snapshot of
-- its own; in one statement all of it would be as old as the statement's begin.)
--
-- `versions`: of these streams, in this order, 0 for one that does not exist. `known_position`: of the oldest append
-- whose first event for a stream has one of these ids; NULL if there is none. `tag_numbers`: of the newest
-- event of each of these tags, 0 without one. `mark_...`: of these marks, NULLs for one that was never set.
CREATE FUNCTION lock_for_append(
    partition integer, streams text[], first_ids uuid[], tags text[], mark_names text[],
    OUT last_position bigint, OUT last_timestamp_us bigint, OUT versions bigint[], OUT known_position bigint,
    OUT tag_numbers bigint[],
    OUT mark_positions bigint[], OUT mark_generations bigint[], OUT mark_append_positions bigint[]
)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT p.last_position, p.last_timestamp_us INTO last_position, last_timestamp_us
    FROM partitions p WHERE p.partition_id = partition
    FOR NO KEY UPDATE;

    versions := ARRAY(
        SELECT coalesce(s.current_version, 0)
        FROM unnest(streams) WITH ORDINALITY AS w (stream_id, number)
        LEFT JOIN event_streams s ON s.stream_id = w.stream_id
        ORDER BY w.number);

    known_position := (
        SELECT min(e.append_position) FROM events e
        WHERE e.partition_id = partition AND e.part_count IS NOT NULL AND e.id = ANY (first_ids));

    IF cardinality(tags) > 0 THEN
        tag_numbers := ARRAY(
            SELECT coalesce((SELECT max(e.tag_number) FROM events e WHERE e.tag = w.tag), 0)
            FROM unnest(tags) WITH ORDINALITY AS w (tag, number)
            ORDER BY w.number);
    END IF;

    IF cardinality(mark_names) > 0 THEN
        SELECT array_agg(m.position ORDER BY w.number), array_agg(m.generation ORDER BY w.number),
               array_agg(m.append_position ORDER BY w.number)
        INTO mark_positions, mark_generations, mark_append_positions
        FROM unnest(mark_names) WITH ORDINALITY AS w (name, number)
        LEFT JOIN marks m ON m.partition_id = partition AND m.name = w.name;
    END IF;
END
$$;
