"""How RocksDB is set up for this work, and why.

The work: entries arrive in order of index in each of some 32 partitions, are read back soon or in
order, and are almost never deleted; event ids are looked up with each append and almost never found;
stream heads are overwritten all the time. One thread writes, on the event loop, so nothing may ever
make it wait: where RocksDB would slow a writer down, it is told not to, and `pressure` refuses
new appends long before.

Prefixes are sought without a prefix extractor: its filters want one length for all, and what is sought
here is a partition (in every file anyway) or a stream, whose ids differ in length. A seek lands on a
stream's first slice, whose key alone says where the stream ends; whole keys have filters.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, field

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DataBlockIndexType,
    DBCompressionType,
    DBRecoveryMode,
    Options,
)

from allsource.storage.files.descriptors import database_files
from allsource.storage.rocksdb.keys import EVENTS, IDS, MARKS, META, PARTITION_INDEX, STREAMS, TAGS

MEMTABLES_MAX = 8
"""Write buffers per column family; writes would stop when all are full."""
_NEVER = 1 << 20
_NEVER_BYTES = 1 << 50
_BLOOM_BITS = 10
_BLOB_BYTES_MIN = 16 << 10


def _background_jobs() -> int:
    return max(2, min(8, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True)
class RocksOptions:
    """What an operator may set (config.schema says when to)."""

    write_buffer_bytes: int = 64 << 20
    """In memory before entries go to a file, for `events`; the indexes get 1/32 of it each."""
    block_cache_bytes: int = 128 << 20
    """Shared by all column families; holds indexes and filters of the files too."""
    background_jobs: int = field(default_factory=_background_jobs)
    """Threads that flush and compact."""
    compacts: bool = True
    """False: once a damaged block was met, which a compaction must not meet."""


def database_options(options: RocksOptions) -> Options:
    """Options of the database as a whole."""
    o = Options(raw_mode=True)
    o.create_if_missing(True)
    o.create_missing_column_families(True)
    # Stop at the first record that is not whole, in every log; `database.open_recovered` decides what it
    # means. (`tolerate_corrupted_tail_records` goes on with the next log file: it would leave a hole.)
    o.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    # A seldom written family (meta) pins old log files. Flushing it early keeps restarts short.
    o.set_max_total_wal_size(2 * options.write_buffer_bytes)
    o.set_db_write_buffer_size(4 * options.write_buffer_bytes)
    o.set_max_background_jobs(options.background_jobs)
    # Write files back bit by bit: a burst of dirty pages would make the log's fsync wait for it.
    o.set_bytes_per_sync(1 << 20)
    # There is one writer: what lets several in at once only costs.
    o.set_allow_concurrent_memtable_write(False)
    o.set_enable_write_thread_adaptive_yield(False)
    # Deleting files belongs to the background, not to the thread that drops an iterator.
    o.set_avoid_unnecessary_blocking_io(True)
    o.set_max_open_files(_open_files())
    o.set_skip_stats_update_on_db_open(True)
    o.set_stats_dump_period_sec(0)
    o.set_stats_persist_period_sec(0)
    o.set_max_log_file_size(4 << 20)
    o.set_keep_log_file_num(4)
    return o


def family_options(options: RocksOptions) -> dict[str, Options]:
    """Options of each column family."""
    cache = Cache(options.block_cache_bytes)
    # Index keys come in no order, and a small write buffer stays in the processor's cache: of four puts
    # for each entry, that takes a third of the time once 100,000 keys are in (scripts/bench_storage.py).
    index_bytes = max(1 << 20, options.write_buffer_bytes // 32)
    families = {
        EVENTS: _family(cache, options.write_buffer_bytes, background_jobs=options.background_jobs),
        STREAMS: _family(cache, index_bytes, background_jobs=options.background_jobs),
        PARTITION_INDEX: _family(cache, index_bytes, background_jobs=options.background_jobs),
        IDS: _family(cache, index_bytes, background_jobs=options.background_jobs),
        TAGS: _family(cache, index_bytes, background_jobs=options.background_jobs),
        MARKS: _family(cache, index_bytes, background_jobs=options.background_jobs),
        META: _family(cache, index_bytes, background_jobs=options.background_jobs),
    }
    # Big entries are written once to a file of their own instead of with every compaction.
    events = families[EVENTS]
    events.set_enable_blob_files(True)
    events.set_min_blob_size(_BLOB_BYTES_MIN)
    events.set_blob_file_size(256 << 20)
    events.set_blob_compression_type(DBCompressionType.lz4())
    # Nearly every id that is asked for is new: let the write buffer say so without a search.
    families[IDS].set_memtable_whole_key_filtering(True)
    families[IDS].set_memtable_prefix_bloom_ratio(0.1)
    families[IDS].set_compression_type(DBCompressionType.none())
    for family in families.values():
        family.set_disable_auto_compactions(not options.compacts)
    return families


def _family(cache: Cache, write_buffer_bytes: int, *, background_jobs: int) -> Options:
    o = Options(raw_mode=True)
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(_BLOOM_BITS, False)
    # In the cache, so that memory stays within what was configured however large the database grows.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_data_block_index_type(DataBlockIndexType.binary_and_hash())
    table.set_format_version(6)  # the first with a checksum over the footer too
    o.set_block_based_table_factory(table)
    o.set_compression_type(DBCompressionType.lz4())
    o.set_write_buffer_size(write_buffer_bytes)
    o.set_max_write_buffer_number(MEMTABLES_MAX)
    o.set_target_file_size_base(64 << 20)
    o.set_max_bytes_for_level_base(256 << 20)
    o.set_level_compaction_dynamic_level_bytes(True)
    o.set_max_subcompactions(background_jobs)
    # Never slow a writer down: see the module's page.
    o.set_level_zero_file_num_compaction_trigger(4)
    o.set_level_zero_slowdown_writes_trigger(_NEVER)
    o.set_level_zero_stop_writes_trigger(_NEVER)
    o.set_soft_pending_compaction_bytes_limit(_NEVER_BYTES)
    o.set_hard_pending_compaction_bytes_limit(_NEVER_BYTES)
    return o


def _open_files() -> int:
    """The database's share of what this process may open; sockets need the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return database_files(soft)
