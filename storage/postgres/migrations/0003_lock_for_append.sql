-- What a repository's append asks before it decides, in one round trip: the partition's row is locked, and
-- what is read behind it is as new as the lock. (In a volatile function each statement has a snapshot of
-- its own; in one statement all of it would be as old as the statement's begin.)
--
-- `versions`: of these streams, in this order, 0 for one that does not exist. `known_position`: of the oldest append
-- whose first event for a stream has one of these ids; NULL if there is none.
CREATE FUNCTION lock_for_append(
    partition integer, streams text[], first_ids uuid[],
    OUT last_position bigint, OUT last_timestamp_us bigint, OUT versions bigint[], OUT known_position bigint
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
END
$$;
