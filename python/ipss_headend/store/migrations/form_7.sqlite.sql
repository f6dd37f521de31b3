CREATE TABLE IF NOT EXISTS account_certificates (
    fingerprint BLOB NOT NULL,
    name TEXT NOT NULL,
    added_us BIGINT NOT NULL,
    PRIMARY KEY (fingerprint)
)
 WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ix_account_certificates_name ON account_certificates (name);
CREATE TABLE IF NOT EXISTS account_roles (
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    PRIMARY KEY (name, role, scope)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    password TEXT,
    disabled INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    locked_until_us BIGINT NOT NULL,
    added_us BIGINT NOT NULL,
    PRIMARY KEY (name)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER NOT NULL,
    at_us BIGINT NOT NULL,
    kind TEXT NOT NULL,
    principal TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (seq)
);
CREATE INDEX IF NOT EXISTS ix_audit_kind ON audit (kind);
CREATE TABLE IF NOT EXISTS audit_checkpoints (
    seq INTEGER NOT NULL,
    at_us BIGINT NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (seq)
);
CREATE TABLE IF NOT EXISTS commands (
    command_id BLOB NOT NULL,
    order_id BLOB NOT NULL,
    meter_id INTEGER NOT NULL,
    state TEXT NOT NULL,
    quarantined INTEGER NOT NULL,
    due_us BIGINT NOT NULL,
    changed_us BIGINT NOT NULL,
    alarmed INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (command_id)
)
 WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commands_by_state ON commands (state, due_us);
CREATE INDEX IF NOT EXISTS ix_commands_order_id ON commands (order_id);
CREATE TABLE IF NOT EXISTS control_state (
    id INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    generation BIGINT NOT NULL,
    budget_us BIGINT NOT NULL,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS ends (
    end_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    meter_id INTEGER NOT NULL,
    request_id BIGINT NOT NULL,
    outcome SMALLINT NOT NULL,
    exchanges INTEGER NOT NULL,
    duration_us BIGINT NOT NULL,
    detail TEXT NOT NULL,
    received_us BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS estimates (
    meter_id INTEGER NOT NULL,
    layout_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    capture_time_us BIGINT NOT NULL,
    noted_us BIGINT NOT NULL,
    value BIGINT,
    method TEXT NOT NULL,
    PRIMARY KEY (meter_id, layout_id, place, capture_time_us)
)
 WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS estimates_wanted ON estimates (value, noted_us);
CREATE TABLE IF NOT EXISTS event_acknowledgements (
    event_id INTEGER NOT NULL,
    principal TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (event_id)
);
CREATE TABLE IF NOT EXISTS event_classes (
    meter_id INTEGER NOT NULL,
    at_us BIGINT NOT NULL,
    code BIGINT NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    severity INTEGER NOT NULL,
    said_by TEXT NOT NULL,
    PRIMARY KEY (meter_id, at_us, code, source)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    event_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    meter_id INTEGER NOT NULL,
    at_us BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    number BIGINT NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS incidents (
    incident_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    area TEXT NOT NULL,
    opened_us BIGINT NOT NULL,
    changed_us BIGINT NOT NULL,
    closed INTEGER NOT NULL,
    signals BLOB NOT NULL,
    dropped INTEGER NOT NULL,
    classes BLOB
);
CREATE INDEX IF NOT EXISTS incidents_open ON incidents (closed, area);
CREATE TABLE IF NOT EXISTS invocation_counters (
    meter_id INTEGER NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS key_counters (
    meter_id INTEGER NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS key_fingerprints (
    fingerprint BLOB NOT NULL,
    meter_id INTEGER NOT NULL,
    PRIMARY KEY (fingerprint)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_generations (
    meter_id INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS keystore (
    id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    salt BLOB NOT NULL,
    cost INTEGER NOT NULL,
    block_size INTEGER NOT NULL,
    parallel INTEGER NOT NULL,
    check_value BLOB NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS keystore_secrets (
    name TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (name)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layout_columns (
    layout_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    class_id INTEGER NOT NULL,
    logical_name TEXT NOT NULL,
    attribute SMALLINT NOT NULL,
    data_index INTEGER NOT NULL,
    scaler SMALLINT,
    unit TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (layout_id, place)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layouts (
    layout_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    class_id INTEGER NOT NULL,
    logical_name TEXT NOT NULL,
    attribute SMALLINT NOT NULL,
    PRIMARY KEY (layout_id),
    UNIQUE (digest)
);
CREATE TABLE IF NOT EXISTS ledger (
    batch_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    written_us BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    readings INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at_us BIGINT NOT NULL,
    topic TEXT NOT NULL,
    content BLOB NOT NULL,
    crc BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS ix_log_at_us ON log (at_us);
CREATE TABLE IF NOT EXISTS marks (
    meter_id INTEGER NOT NULL,
    layout_id INTEGER NOT NULL,
    from_us BIGINT NOT NULL,
    until_us BIGINT NOT NULL,
    gaps BLOB NOT NULL,
    PRIMARY KEY (meter_id, layout_id)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meter_keys (
    meter_id INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS meters (
    meter_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    host TEXT,
    port INTEGER,
    server INTEGER NOT NULL,
    system_title BLOB,
    logical_device_name BLOB,
    model TEXT NOT NULL,
    group_name TEXT NOT NULL,
    protocol TEXT NOT NULL,
    added_us BIGINT NOT NULL,
    UNIQUE (host, port, server),
    UNIQUE (name),
    UNIQUE (system_title),
    UNIQUE (logical_device_name)
);
CREATE TABLE IF NOT EXISTS order_signatures (
    order_id BLOB NOT NULL,
    purpose TEXT NOT NULL,
    principal TEXT NOT NULL,
    generation BIGINT NOT NULL,
    signature BLOB NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (order_id, purpose, principal, generation)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    order_id BLOB NOT NULL,
    octets BLOB NOT NULL,
    kind TEXT NOT NULL,
    requester TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    not_after_us BIGINT NOT NULL,
    targets INTEGER NOT NULL,
    PRIMARY KEY (order_id)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owner (
    id INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    since_us BIGINT NOT NULL,
    process INTEGER NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS peer_counters (
    meter_id INTEGER NOT NULL,
    high_water BIGINT NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS pending_keys (
    meter_id INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    window_us BIGINT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS plugin_cursors (
    plugin TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (plugin)
);
CREATE TABLE IF NOT EXISTS plugin_effects (
    plugin TEXT NOT NULL,
    "key" TEXT NOT NULL,
    kind TEXT NOT NULL,
    content BLOB NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (plugin, "key")
);
CREATE TABLE IF NOT EXISTS plugin_states (
    plugin TEXT NOT NULL,
    enabled INTEGER,
    settings BLOB,
    principal TEXT NOT NULL,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (plugin)
);
CREATE TABLE IF NOT EXISTS protected (
    meter_id INTEGER NOT NULL,
    system_title BLOB NOT NULL,
    name TEXT NOT NULL,
    principal TEXT NOT NULL,
    reason TEXT NOT NULL,
    changed_us BIGINT NOT NULL,
    removal_by TEXT NOT NULL,
    PRIMARY KEY (meter_id)
);
CREATE TABLE IF NOT EXISTS quarantine_pushes (
    push_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    system_title BLOB NOT NULL,
    received_us BIGINT NOT NULL,
    wpdu BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ix_quarantine_pushes_system_title ON quarantine_pushes (system_title);
CREATE TABLE IF NOT EXISTS quarantine_senders (
    system_title BLOB NOT NULL,
    address TEXT NOT NULL,
    first_us BIGINT NOT NULL,
    last_us BIGINT NOT NULL,
    pushes BIGINT NOT NULL,
    PRIMARY KEY (system_title)
)
 WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ix_quarantine_senders_last_us ON quarantine_senders (last_us);
CREATE TABLE IF NOT EXISTS reading_flags (
    meter_id INTEGER NOT NULL,
    layout_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    capture_time_us BIGINT NOT NULL,
    flags INTEGER NOT NULL,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (meter_id, layout_id, place, capture_time_us)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS readings (
    meter_id INTEGER NOT NULL,
    layout_id INTEGER NOT NULL,
    capture_time_us BIGINT NOT NULL,
    entry_hash BIGINT NOT NULL,
    deviation_min SMALLINT NOT NULL,
    clock_status SMALLINT NOT NULL,
    received_us BIGINT NOT NULL,
    quality INTEGER NOT NULL,
    cells BLOB NOT NULL,
    crc BIGINT NOT NULL,
    PRIMARY KEY (meter_id, layout_id, capture_time_us, entry_hash)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    refusal_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    meter_id INTEGER NOT NULL,
    request_id BIGINT NOT NULL,
    item SMALLINT NOT NULL,
    code SMALLINT NOT NULL,
    received_us BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS restore_guard (
    id INTEGER NOT NULL,
    instance TEXT NOT NULL,
    grants BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    restored TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS rpc_keys (
    principal TEXT NOT NULL,
    "key" TEXT NOT NULL,
    method TEXT NOT NULL,
    digest BLOB NOT NULL,
    at_us BIGINT NOT NULL,
    answer BLOB,
    PRIMARY KEY (principal, "key")
);
CREATE INDEX IF NOT EXISTS ix_rpc_keys_at_us ON rpc_keys (at_us);
CREATE TABLE IF NOT EXISTS schema_info (
    schema_version INTEGER NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS set_points (
    meter_id INTEGER NOT NULL,
    function TEXT NOT NULL,
    source TEXT NOT NULL,
    value TEXT NOT NULL,
    priority INTEGER NOT NULL,
    asked_us BIGINT NOT NULL,
    until_us BIGINT NOT NULL,
    revert_s INTEGER NOT NULL,
    "exclusive" INTEGER NOT NULL,
    PRIMARY KEY (meter_id, function, source)
)
 WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spends (
    spend_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL,
    principal TEXT NOT NULL,
    group_name TEXT NOT NULL,
    budget_us BIGINT NOT NULL,
    command_id BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS spreads (
    subject BLOB NOT NULL,
    ring INTEGER NOT NULL,
    failed_before INTEGER NOT NULL,
    halted TEXT NOT NULL,
    changed_us BIGINT NOT NULL,
    PRIMARY KEY (subject)
)
 WITHOUT ROWID;
