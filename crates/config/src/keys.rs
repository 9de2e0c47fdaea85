//! The table of keys: the only place where a key's name, type, default and history are written down.
//!
//! Defaults are those of 2026.8.0. A key that is not here is kept and handed on, but not checked.

use crate::kind::{Default, Default as D, Kind, Kind as K};

/// One declared key.
#[derive(Clone, Copy, Debug)]
pub struct KeyDecl {
    /// Dotted name in stock's spelling.
    pub name: &'static str,
    /// Type and unit.
    pub kind: Kind,
    /// Value when nobody sets it.
    pub default: Default,
    /// First release that had it (2.17.0: the first covered one), or `oxidask`.
    pub since: &'static str,
    /// Last release that had it, when it is gone.
    pub until: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: Default,
    since: &'static str,
    doc: &'static str,
) -> KeyDecl {
    KeyDecl {
        name,
        kind,
        default,
        since,
        until: None,
        doc,
    }
}

const fn past(
    name: &'static str,
    kind: Kind,
    default: Default,
    since: &'static str,
    until: &'static str,
    doc: &'static str,
) -> KeyDecl {
    KeyDecl {
        name,
        kind,
        default,
        since,
        until: Some(until),
        doc,
    }
}

/// Measures of a worker's memory.
const MEASURES: &[&str] = &[
    "process",
    "optimistic",
    "managed",
    "managed_total",
    "managed_in_memory",
    "managed_spilled",
    "unmanaged",
    "unmanaged_old",
    "unmanaged_recent",
];

/// Every key, by section.
#[rustfmt::skip]
pub const KEYS: &[KeyDecl] = &[
    // Common to all programs.
    key("scheduler-address", K::OptText, D::Absent, "2.17.0", "address a worker or client connects to when none is given"),
    key("temporary-directory", K::OptText, D::None, "2.17.0", "where workers keep their files when no local directory is given"),
    key("distributed.version", K::Count, D::Int(2), "2.17.0", "version of the layout of these keys"),
    key("distributed.logging", K::Map, D::Absent, "2.17.0", "levels by logger, or a `logging.config` dictionary"),
    key("logging", K::Map, D::Absent, "2.17.0", "the same outside of `distributed`"),
    // Scheduler.
    key("distributed.scheduler.allowed-failures", K::Count, D::Int(3), "2.17.0", "deaths of workers while running a task before it fails with KilledWorker"),
    key("distributed.scheduler.bandwidth", K::Bytes, D::Int(100_000_000), "2.17.0", "first guess of bytes per second between workers"),
    key("distributed.scheduler.blocked-handlers", K::Texts, D::List(&[]), "2.17.0", "operations that are refused"),
    key("distributed.scheduler.contact-address", K::OptText, D::None, "2022.05.1", "address told to peers instead of the one listened on"),
    key("distributed.scheduler.default-data-size", K::Bytes, D::Str("1kiB"), "2.17.0", "assumed size of results not seen yet"),
    key("distributed.scheduler.reuse-broadcast-comm", K::Bool, D::Bool(true), "2025.7.0", "keep connections between broadcasts"),
    key("distributed.scheduler.events-cleanup-delay", K::Duration("s"), D::Str("1h"), "2.17.0", "how long events of departed peers are kept"),
    key("distributed.scheduler.idle-timeout", K::Duration("s"), D::None, "2.17.0", "shut down after so long without work"),
    key("distributed.scheduler.no-workers-timeout", K::Duration("s"), D::None, "2024.1.0", "fail tasks that no worker can run after so long"),
    key("distributed.scheduler.work-stealing", K::Bool, D::Bool(true), "2.17.0", "move queued tasks from busy to idle workers"),
    key("distributed.scheduler.work-stealing-interval", K::Duration("ms"), D::Str("1s"), "2.17.0", "time between rounds of stealing"),
    key("distributed.scheduler.worker-saturation", K::Number, D::Float(1.1), "2022.9.0", "root tasks sent per thread; `inf` sends all at once"),
    key("distributed.scheduler.rootish-taskgroup", K::Count, D::Int(5), "2024.11.0", "most dependencies of a group of root tasks"),
    key("distributed.scheduler.rootish-taskgroup-dependencies", K::Count, D::Int(5), "2024.11.0", "most dependencies of those dependencies"),
    key("distributed.scheduler.worker-ttl", K::Duration("s"), D::Str("5 minutes"), "2.17.0", "drop workers silent for so long"),
    past("distributed.scheduler.pickle", K::Bool, D::Bool(true), "2.17.0", "2023.12.0", "accept pickled objects from clients"),
    key("distributed.scheduler.preload", K::Texts, D::List(&[]), "2.17.0", "modules, files or URLs loaded with the scheduler"),
    key("distributed.scheduler.preload-argv", K::List, D::List(&[]), "2.17.0", "arguments of those"),
    key("distributed.scheduler.unknown-task-duration", K::Duration("s"), D::Str("500ms"), "2.17.0", "assumed duration of tasks never seen"),
    key("distributed.scheduler.default-task-durations", K::Durations, D::Map(&[("rechunk-split", D::Str("1us")), ("split-shuffle", D::Str("1us")), ("split-taskshuffle", D::Str("1us")), ("split-stage", D::Str("1us"))]), "2.17.0", "assumed durations by prefix"),
    key("distributed.scheduler.validate", K::Bool, D::Bool(false), "2.17.0", "check the state after each change"),
    key("distributed.scheduler.dashboard.status.task-stream-length", K::Count, D::Int(1000), "2.17.0", "tasks shown on the status page"),
    key("distributed.scheduler.dashboard.tasks.task-stream-length", K::Count, D::Int(100_000), "2.17.0", "tasks shown on the task page"),
    key("distributed.scheduler.dashboard.tls.ca-file", K::OptText, D::None, "2.17.0", "authorities for HTTPS"),
    key("distributed.scheduler.dashboard.tls.key", K::OptText, D::None, "2.17.0", "key for HTTPS"),
    key("distributed.scheduler.dashboard.tls.cert", K::OptText, D::None, "2.17.0", "certificate for HTTPS"),
    key("distributed.scheduler.dashboard.bokeh-application", K::Map, D::Map(&[("allow_websocket_origin", D::List(&[D::Str("*")])), ("keep_alive_milliseconds", D::Int(500)), ("check_unused_sessions_milliseconds", D::Int(500))]), "2.17.0", "passed to bokeh"),
    key("distributed.scheduler.locks.lease-validation-interval", K::Duration("s"), D::Str("10s"), "2.17.0", "time between checks of semaphore leases"),
    key("distributed.scheduler.locks.lease-timeout", K::Duration("s"), D::Str("30s"), "2.17.0", "leases not refreshed for so long are released"),
    key("distributed.scheduler.http.routes", K::Texts, D::List(&[D::Str("distributed.http.scheduler.prometheus"), D::Str("distributed.http.scheduler.info"), D::Str("distributed.http.scheduler.json"), D::Str("distributed.http.health"), D::Str("distributed.http.proxy"), D::Str("distributed.http.statics")]), "2.17.0", "families of HTTP routes"),
    key("distributed.scheduler.allowed-imports", K::Texts, D::List(&[D::Str("dask"), D::Str("distributed")]), "2020.12.0", "packages that graphs may import from"),
    key("distributed.scheduler.active-memory-manager.start", K::Bool, D::Bool(true), "2021.09.1", "run it from the start"),
    key("distributed.scheduler.active-memory-manager.interval", K::Duration("s"), D::Str("2s"), "2021.09.1", "time between its rounds"),
    key("distributed.scheduler.active-memory-manager.measure", K::Word(MEASURES), D::Str("optimistic"), "2022.9.2", "which measure of a worker's memory it uses"),
    key("distributed.scheduler.active-memory-manager.policies", K::List, D::List(&[D::Map(&[("class", D::Str("distributed.active_memory_manager.ReduceReplicas"))])]), "2021.09.1", "what it does each round"),
    // Worker.
    key("distributed.worker.blocked-handlers", K::Texts, D::List(&[]), "2.17.0", "operations that are refused"),
    key("distributed.worker.multiprocessing-method", K::Text, D::Str("spawn"), "2.17.0", "how worker processes are started"),
    key("distributed.worker.use-file-locking", K::Bool, D::Bool(true), "2.17.0", "lock the local directory"),
    key("distributed.worker.transfer.message-bytes-limit", K::Bytes, D::Str("50MB"), "2022.9.2", "bytes asked for in one message"),
    key("distributed.worker.connections.outgoing", K::Count, D::Int(50), "2.17.0", "transfers fetched at once"),
    key("distributed.worker.connections.incoming", K::Count, D::Int(10), "2.17.0", "transfers served at once"),
    key("distributed.worker.preload", K::Texts, D::List(&[]), "2.17.0", "modules, files or URLs loaded with the worker"),
    key("distributed.worker.preload-argv", K::List, D::List(&[]), "2.17.0", "arguments of those"),
    key("distributed.worker.daemon", K::Bool, D::Bool(true), "2.17.0", "worker processes end with their nanny"),
    key("distributed.worker.validate", K::Bool, D::Bool(false), "2.17.0", "check the state after each change"),
    key("distributed.worker.resources", K::Map, D::Map(&[]), "2021.02.0", "abstract resources and their amounts"),
    key("distributed.worker.lifetime.duration", K::Duration("s"), D::None, "2.17.0", "leave gracefully after so long"),
    key("distributed.worker.lifetime.stagger", K::Duration("s"), D::Str("0 seconds"), "2.17.0", "random part of the lifetime"),
    key("distributed.worker.lifetime.restart", K::Bool, D::Bool(false), "2.17.0", "start again after the lifetime"),
    key("distributed.worker.profile.enabled", K::Bool, D::Bool(true), "2022.6.0", "take profiles"),
    key("distributed.worker.profile.interval", K::Duration("ms"), D::Str("10ms"), "2.17.0", "time between samples"),
    key("distributed.worker.profile.cycle", K::Duration("ms"), D::Str("1000ms"), "2.17.0", "time covered by one profile"),
    key("distributed.worker.profile.low-level", K::Bool, D::Bool(false), "2.17.0", "include native frames"),
    key("distributed.worker.memory.recent-to-old-time", K::Duration("s"), D::Str("30s"), "2021.06.0", "growth younger than this is not counted"),
    key("distributed.worker.memory.rebalance.measure", K::Word(MEASURES), D::Str("optimistic"), "2021.06.0", "which measure rebalancing uses"),
    key("distributed.worker.memory.rebalance.sender-min", K::Fraction, D::Float(0.3), "2021.06.0", "workers below keep their data"),
    key("distributed.worker.memory.rebalance.recipient-max", K::Fraction, D::Float(0.6), "2021.06.0", "workers above receive none"),
    key("distributed.worker.memory.rebalance.sender-recipient-gap", K::Fraction, D::Float(0.1), "2021.06.0", "width of the band around the mean left alone"),
    key("distributed.worker.memory.transfer", K::Fraction, D::Float(0.1), "2022.9.1", "memory that incoming data may take"),
    key("distributed.worker.memory.target", K::Fraction, D::Float(0.6), "2.17.0", "managed memory above which results are spilled"),
    key("distributed.worker.memory.spill", K::Fraction, D::Float(0.7), "2.17.0", "process memory above which results are spilled"),
    key("distributed.worker.memory.pause", K::Fraction, D::Float(0.8), "2.17.0", "process memory above which no task is started"),
    key("distributed.worker.memory.terminate", K::Fraction, D::Float(0.95), "2.17.0", "process memory above which the worker is restarted"),
    key("distributed.worker.memory.max-spill", K::Bytes, D::Bool(false), "2022.02.1", "most bytes spilled"),
    key("distributed.worker.memory.spill-compression", K::Compression, D::Str("auto"), "2023.5.0", "compression of spilled results"),
    key("distributed.worker.memory.monitor-interval", K::Duration("ms"), D::Str("100ms"), "2022.03.0", "time between looks at the memory"),
    key("distributed.worker.http.routes", K::Texts, D::List(&[D::Str("distributed.http.worker.prometheus"), D::Str("distributed.http.health"), D::Str("distributed.http.statics")]), "2.17.0", "families of HTTP routes"),
    // Nanny.
    key("distributed.nanny.preload", K::Texts, D::List(&[]), "2.17.0", "modules, files or URLs loaded with the nanny"),
    key("distributed.nanny.preload-argv", K::List, D::List(&[]), "2.17.0", "arguments of those"),
    key("distributed.nanny.environ", K::Map, D::Map(&[]), "2021.07.2", "variables set in a started worker process"),
    key("distributed.nanny.pre-spawn-environ", K::Map, D::Map(&[("MALLOC_TRIM_THRESHOLD_", D::Int(65536)), ("OMP_NUM_THREADS", D::Int(1)), ("MKL_NUM_THREADS", D::Int(1)), ("OPENBLAS_NUM_THREADS", D::Int(1))]), "2022.8.1", "variables set before it starts"),
    // Client.
    key("distributed.client.direct-to-workers", K::OptBool, D::None, "2025.7.0", "gather and scatter without the scheduler"),
    key("distributed.client.heartbeat", K::Duration("s"), D::Str("5s"), "2.17.0", "time between heartbeats"),
    key("distributed.client.scheduler-info-interval", K::Duration("ms"), D::Str("2s"), "2.17.0", "time between refreshes of the scheduler's identity"),
    key("distributed.client.security-loader", K::OptText, D::None, "2022.01.1", "callable that gives credentials"),
    key("distributed.client.preload", K::Texts, D::List(&[]), "2022.02.1", "modules, files or URLs loaded with the client"),
    key("distributed.client.preload-argv", K::List, D::List(&[]), "2022.02.1", "arguments of those"),
    // Deployment.
    key("distributed.deploy.lost-worker-timeout", K::Duration("s"), D::Str("15s"), "2.17.0", "close the job of a lost worker after so long"),
    key("distributed.deploy.cluster-repr-interval", K::Duration("ms"), D::Str("500ms"), "2.17.0", "time between refreshes of the widget"),
    key("distributed.adaptive.interval", K::Duration("ms"), D::Str("1s"), "2.17.0", "time between decisions to scale"),
    key("distributed.adaptive.target-duration", K::Duration("s"), D::Str("5s"), "2.17.0", "how long the present work should take"),
    key("distributed.adaptive.minimum", K::Count, D::Int(0), "2.17.0", "fewest workers"),
    key("distributed.adaptive.maximum", K::Number, D::Float(f64::INFINITY), "2.17.0", "most workers"),
    key("distributed.adaptive.wait-count", K::Count, D::Int(3), "2.17.0", "decisions against a worker before it goes"),
    // Connections.
    key("distributed.comm.retry.count", K::Count, D::Int(0), "2.17.0", "attempts beyond the first"),
    key("distributed.comm.retry.delay.min", K::Duration("s"), D::Str("1s"), "2.17.0", "first pause between attempts"),
    key("distributed.comm.retry.delay.max", K::Duration("s"), D::Str("20s"), "2.17.0", "longest pause between attempts"),
    key("distributed.comm.compression", K::Compression, D::Bool(false), "2.17.0", "compression of messages; `auto` before 2023.5.0"),
    key("distributed.comm.shard", K::Bytes, D::Str("64MiB"), "2021.07.0", "longer frames are cut"),
    key("distributed.comm.offload", K::Bytes, D::Str("10MiB"), "2.17.0", "larger messages are coded on another thread"),
    key("distributed.comm.default-scheme", K::Text, D::Str("tcp"), "2.17.0", "protocol of addresses without one"),
    key("distributed.comm.socket-backlog", K::Count, D::Int(2048), "2.17.0", "connections waiting to be accepted"),
    past("distributed.comm.recent-messages-log-length", K::Count, D::Absent, "2.17.0", "2023.9.2", "messages kept for debugging"),
    past("distributed.comm.tcp.backend", K::Text, D::Absent, "2022.01.0", "2023.11.0", "implementation of TCP"),
    key("distributed.comm.zstd.level", K::Int, D::Int(3), "2.17.0", "level of zstd"),
    key("distributed.comm.zstd.threads", K::Int, D::Int(0), "2.17.0", "threads of zstd; -1 for all cores"),
    key("distributed.comm.timeouts.connect", K::Duration("s"), D::Str("30s"), "2.17.0", "longest attempt to connect"),
    key("distributed.comm.timeouts.tcp", K::Duration("s"), D::Str("30s"), "2.17.0", "silence after which TCP keep-alive gives up"),
    key("distributed.comm.require-encryption", K::OptBool, D::None, "2.17.0", "refuse unencrypted connections"),
    key("distributed.comm.tls.ciphers", K::OptText, D::None, "2.17.0", "ciphers allowed, in OpenSSL's spelling"),
    key("distributed.comm.tls.min-version", K::Version, D::Float(1.2), "2022.01.0", "oldest TLS"),
    key("distributed.comm.tls.max-version", K::Version, D::None, "2022.01.0", "newest TLS"),
    key("distributed.comm.tls.ca-file", K::OptText, D::None, "2.17.0", "authorities"),
    key("distributed.comm.tls.scheduler.cert", K::OptText, D::None, "2.17.0", "certificate of the scheduler"),
    key("distributed.comm.tls.scheduler.key", K::OptText, D::None, "2.17.0", "key of the scheduler"),
    key("distributed.comm.tls.worker.key", K::OptText, D::None, "2.17.0", "key of workers"),
    key("distributed.comm.tls.worker.cert", K::OptText, D::None, "2.17.0", "certificate of workers"),
    key("distributed.comm.tls.client.key", K::OptText, D::None, "2.17.0", "key of clients"),
    key("distributed.comm.tls.client.cert", K::OptText, D::None, "2.17.0", "certificate of clients"),
    past("distributed.comm.ucx", K::Any, D::Absent, "2021.07.2", "2025.10.0", "settings of UCX"),
    key("distributed.comm.websockets.shard", K::Bytes, D::Str("8MiB"), "2021.07.1", "longer websocket frames are cut"),
    // Diagnostics.
    key("distributed.diagnostics.nvml", K::Bool, D::Bool(true), "2021.06.1", "watch GPUs"),
    key("distributed.diagnostics.cudf", K::Bool, D::Bool(false), "2024.1.0", "watch spilling of cudf"),
    key("distributed.diagnostics.computations.max-history", K::Count, D::Int(100), "2021.07.1", "computations remembered"),
    key("distributed.diagnostics.computations.nframes", K::Count, D::Int(0), "2023.4.0", "frames of user code remembered"),
    key("distributed.diagnostics.computations.ignore-modules", K::Texts, D::List(&[D::Str("asyncio"), D::Str("functools"), D::Str("threading"), D::Str("datashader"), D::Str("dask"), D::Str("debugpy"), D::Str("distributed"), D::Str("ipykernel"), D::Str("coiled"), D::Str("cudf"), D::Str("cuml"), D::Str("matplotlib"), D::Str("pluggy"), D::Str("prefect"), D::Str("rechunker"), D::Str("xarray"), D::Str("xgboost"), D::Str("xdist"), D::Str("__channelexec__"), D::Str("execnet")]), "2021.07.1", "modules that are not user code"),
    key("distributed.diagnostics.computations.ignore-files", K::Texts, D::List(&[D::Str("runpy"), D::Str(".*py\\.?test.*"), D::Str("pycharm"), D::Str("get_output_via_markers")]), "2023.4.0", "files that are not user code"),
    key("distributed.diagnostics.erred-tasks.max-history", K::Count, D::Int(100), "2022.7.1", "failed tasks remembered"),
    // Shuffles between workers.
    key("distributed.p2p.comm.buffer", K::Bytes, D::Str("1 GiB"), "2024.10.0", "bytes waiting to be sent"),
    key("distributed.p2p.comm.concurrency", K::Count, D::Int(10), "2024.10.0", "sends at once"),
    key("distributed.p2p.comm.message-bytes-limit", K::Bytes, D::Str("2 MiB"), "2024.10.0", "bytes of one message"),
    key("distributed.p2p.comm.retry.count", K::Count, D::Int(10), "2023.10.0", "attempts beyond the first"),
    key("distributed.p2p.comm.retry.delay.min", K::Duration("s"), D::Str("1s"), "2023.10.0", "first pause between attempts"),
    key("distributed.p2p.comm.retry.delay.max", K::Duration("s"), D::Str("30s"), "2023.10.0", "longest pause between attempts"),
    key("distributed.p2p.storage.buffer", K::Bytes, D::Str("100 MiB"), "2024.10.0", "bytes waiting to be stored"),
    key("distributed.p2p.storage.disk", K::Bool, D::Bool(true), "2024.10.0", "keep partitions on disk"),
    key("distributed.p2p.threads", K::OptCount, D::None, "2024.10.0", "threads of a shuffle"),
    // Dashboard.
    key("distributed.dashboard.link", K::Text, D::Str("{scheme}://{host}:{port}/status"), "2.17.0", "link shown to people"),
    key("distributed.dashboard.export-tool", K::Bool, D::Bool(false), "2.17.0", "button to export plots"),
    key("distributed.dashboard.graph-max-items", K::Count, D::Int(5000), "2.17.0", "most tasks drawn as a graph"),
    key("distributed.dashboard.prometheus.namespace", K::Text, D::Str("dask"), "2021.04.1", "prefix of metrics"),
    // Administration.
    key("distributed.admin.large-graph-warning-threshold", K::Bytes, D::Str("10MB"), "2024.2.1", "clients warn about larger graphs"),
    key("distributed.admin.tick.interval", K::Duration("ms"), D::Str("20ms"), "2.17.0", "time between ticks of the event loop"),
    key("distributed.admin.tick.limit", K::Duration("s"), D::Str("3s"), "2.17.0", "later ticks are warned about"),
    key("distributed.admin.tick.cycle", K::Duration("s"), D::Str("1s"), "2022.04.0", "time over which ticks are counted"),
    key("distributed.admin.max-error-length", K::Count, D::Int(10000), "2.17.0", "longest error text returned"),
    key("distributed.admin.log-length", K::OptCount, D::Int(10000), "2.17.0", "log lines kept for `get_logs`"),
    key("distributed.admin.log-format", K::Text, D::Str("%(asctime)s - %(name)s - %(levelname)s - %(message)s"), "2.17.0", "format of log lines, in Python's spelling"),
    key("distributed.admin.low-level-log-length", K::OptCount, D::Int(1000), "2023.9.3", "entries of developers' logs"),
    key("distributed.admin.pdb-on-err", K::Bool, D::Bool(false), "2.17.0", "open a debugger on errors"),
    key("distributed.admin.system-monitor.interval", K::Duration("ms"), D::Str("500ms"), "2021.01.1", "time between samples"),
    key("distributed.admin.system-monitor.log-length", K::OptCount, D::Int(7200), "2023.9.3", "samples kept"),
    key("distributed.admin.system-monitor.disk", K::Bool, D::Bool(true), "2022.6.0", "watch disks"),
    key("distributed.admin.system-monitor.host-cpu", K::Bool, D::Bool(false), "2022.10.0", "watch the machine's processors"),
    key("distributed.admin.system-monitor.gil.enabled", K::Bool, D::Bool(true), "2023.3.2", "watch contention for the GIL"),
    key("distributed.admin.system-monitor.gil.interval", K::Duration("ms"), D::Str("1ms"), "2023.3.2", "time between its samples"),
    key("distributed.admin.event-loop", K::Text, D::Str("tornado"), "2021.01.1", "event loop of Python processes"),
    key("distributed.rmm.pool-size", K::Any, D::None, "2021.07.2", "memory pool of RMM"),
    // Ours.
    key("oxidask.python-host.mode", K::Word(&["auto", "local", "delegated", "off"]), D::Str("auto"), "oxidask", "who expands graphs that need Python"),
    key("oxidask.python-host.python", K::OptText, D::None, "oxidask", "interpreter of the local Python host; by default the environment's"),
    key("oxidask.python-host.timeout", K::Duration("s"), D::Str("5 minutes"), "oxidask", "longest expansion of one graph, and longest wait for a peer that can do it"),
    key("oxidask.python-host.function-timeout", K::Duration("s"), D::Str("1 hour"), "oxidask", "longest run of one function of `run_on_scheduler`"),
    key("oxidask.python-host.start-timeout", K::Duration("s"), D::Str("60s"), "oxidask", "longest start of a local Python"),
    key("oxidask.python-host.idle-timeout", K::Duration("s"), D::Str("5 minutes"), "oxidask", "local Pythons without work end after this time"),
    key("oxidask.python-host.processes", K::Count, D::Int(2), "oxidask", "graphs that are expanded locally at the same time"),
    key("oxidask.python-host.max-answer-bytes", K::Bytes, D::Str("64GiB"), "oxidask", "largest expanded graph"),
    key("oxidask.comm.silent-peer-framing", K::Word(&["f1", "f2"]), D::Str("f2"), "oxidask", "framing for addresses never heard of: f1 up to 2021.11, f2 from then on"),
    key("oxidask.comm.older-port", K::OptCount, D::None, "oxidask", "a second port, on which silent peers are greeted as releases up to 2021.02.0"),
    key("oxidask.comm.max-message-bytes", K::Bytes, D::Str("16GiB"), "oxidask", "larger messages close their connection"),
    key("oxidask.comm.max-queued-bytes", K::Bytes, D::Str("1GiB"), "oxidask", "a peer for which more waits, since it does not read, is given up"),
    key("oxidask.comm.max-frames", K::Count, D::Int(1_000_000), "oxidask", "messages of more frames close their connection"),
    key("oxidask.scheduler.record", K::OptText, D::None, "oxidask", "file that gets a recording of the scheduler's events"),
    key("oxidask.scheduler.record-max-bytes", K::Bytes, D::Str("8GiB"), "oxidask", "the recording ends when it is so long"),
    key("oxidask.scheduler.watchdog-patience", K::Duration("s"), D::Str("60s"), "oxidask", "a task that stands still for so long on a worker with a free thread is asked about"),
    key("oxidask.scheduler.watchdog-directory", K::OptText, D::None, "oxidask", "where the watchdog leaves what it found wrong; by default the system's directory for temporary files"),
    key("oxidask.roles.file", K::OptText, D::None, "oxidask", "rules of what the holders of certificates may do (docs/roles.md)"),
    key("oxidask.security.secure", K::Bool, D::Bool(false), "oxidask", "run no code of clients in the scheduler unless TLS says who they are (`--secure`)"),
    key("oxidask.log.format", K::Word(&["text", "json"]), D::Str("text"), "oxidask", "form of log lines"),
    key("oxidask.log.buffer-bytes", K::Bytes, D::Str("16MiB"), "oxidask", "most bytes of log lines kept for `get_logs`"),
];

/// The declaration of a key; `-` and `_` are the same.
#[must_use]
pub fn declaration(name: &str) -> Option<&'static KeyDecl> {
    let name = crate::layers::normal(name);
    KEYS.iter()
        .find(|key| crate::layers::normal(key.name) == name)
}

/// Whether declared keys lie below this path.
pub(crate) fn is_section(path: &str) -> bool {
    let below = |name: &str| {
        name.strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    KEYS.iter()
        .any(|key| below(&crate::layers::normal(key.name)))
}

/// Former names of keys and their present ones, in the order in which they are applied.
#[rustfmt::skip]
pub const RENAMES: &[(&str, &str)] = &[
    ("fuse-ave-width", "optimization.fuse.ave-width"),
    ("fuse-max-height", "optimization.fuse.max-height"),
    ("fuse-max-width", "optimization.fuse.max-width"),
    ("fuse-rename-keys", "optimization.fuse.rename-keys"),
    ("fuse-max-depth-new-edges", "optimization.fuse.max-depth-new-edges"),
    ("ucx.cuda-copy", "distributed.ucx.cuda_copy"),
    ("ucx.tcp", "distributed.ucx.tcp"),
    ("ucx.nvlink", "distributed.ucx.nvlink"),
    ("ucx.infiniband", "distributed.ucx.infiniband"),
    ("ucx.rdmacm", "distributed.ucx.rdmacm"),
    ("ucx.net-devices", "distributed.ucx.net-devices"),
    ("ucx.reuse-endpoints", "distributed.ucx.reuse-endpoints"),
    ("rmm.pool-size", "distributed.rmm.pool-size"),
    ("shuffle", "dataframe.shuffle.algorithm"),
    ("array.rechunk-threshold", "array.rechunk.threshold"),
    ("dataframe.shuffle.algorithm", "dataframe.shuffle.method"),
    ("dataframe.shuffle-compression", "dataframe.shuffle.compression"),
    ("admin.traceback.shorten.what", "admin.traceback.shorten"),
    ("array.shuffle.chunksize-tolerance", "array.chunk-size-tolerance"),
    ("allowed-failures", "distributed.scheduler.allowed-failures"),
    ("bandwidth", "distributed.scheduler.bandwidth"),
    ("default-data-size", "distributed.scheduler.default-data-size"),
    ("work-stealing", "distributed.scheduler.work-stealing"),
    ("worker-ttl", "distributed.scheduler.worker-ttl"),
    ("multiprocessing-method", "distributed.worker.multiprocessing-method"),
    ("use-file-locking", "distributed.worker.use-file-locking"),
    ("profile-interval", "distributed.worker.profile.interval"),
    ("profile-cycle-interval", "distributed.worker.profile.cycle"),
    ("worker-memory-target", "distributed.worker.memory.target"),
    ("worker-memory-spill", "distributed.worker.memory.spill"),
    ("worker-memory-pause", "distributed.worker.memory.pause"),
    ("worker-memory-terminate", "distributed.worker.memory.terminate"),
    ("heartbeat-interval", "distributed.client.heartbeat"),
    ("compression", "distributed.comm.compression"),
    ("connect-timeout", "distributed.comm.timeouts.connect"),
    ("tcp-timeout", "distributed.comm.timeouts.tcp"),
    ("default-scheme", "distributed.comm.default-scheme"),
    ("socket-backlog", "distributed.comm.socket-backlog"),
    ("diagnostics-link", "distributed.dashboard.link"),
    ("bokeh-export-tool", "distributed.dashboard.export-tool"),
    ("tick-time", "distributed.admin.tick.interval"),
    ("tick-maximum-delay", "distributed.admin.tick.limit"),
    ("log-length", "distributed.admin.log-length"),
    ("log-format", "distributed.admin.log-format"),
    ("pdb-on-err", "distributed.admin.pdb-on-err"),
    ("ucx", "distributed.comm.ucx"),
    ("rmm", "distributed.rmm"),
    ("transition-log-length", "distributed.admin.low-level-log-length"),
    ("distributed.scheduler.transition-log-length", "distributed.admin.low-level-log-length"),
    ("distributed.scheduler.events-log-length", "distributed.admin.low-level-log-length"),
    ("recent-messages-log-length", "distributed.admin.low-level-log-length"),
    ("distributed.comm.recent-messages-log-length", "distributed.admin.low-level-log-length"),
    ("distributed.p2p.disk", "distributed.p2p.storage.disk"),
];
