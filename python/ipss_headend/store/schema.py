"""The tables. Times are microseconds of UTC since 1970 and end in `_us`; readings are described in `records.py`.

No table has a foreign key into the bulk ones, and the bulk ones have one index each: the index is the cost.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    types,
)

SCHEMA_VERSION = 12
"""Raised by one with each change, which is a file in `migrations/versions`. A store with a higher
one is refused (R46).
"""

NUMBERED = ("log", "meters", "network")
"""Tables whose numbers the table `numbers` gives; the network's is its version."""

Number = BigInteger().with_variant(Integer, "sqlite")
"""Of rows that may be more than 2^31, and of meters that may be nobody. SQLite's INTEGER holds them, and numbers rows
by itself under no other name.
"""

Code = Integer().with_variant(SmallInteger, "sqlite")
"""Of what a meter may have chosen: SQLite takes any, PostgreSQL none above its type's."""

Text = types.Text().with_variant(types.Text(collation="C"), "postgresql")
"""In the order of its octets, everywhere."""

metadata = MetaData()

schema_info = Table(
    "schema_info",
    metadata,
    Column("schema_version", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), primary_key=True),
    comment="The newest of migrations/versions that was applied.",
)

numbers = Table(
    "numbers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
    comment="The highest number ever given to a row of a table: without a gap, and never twice.",
)

scrub = Table(
    "scrub",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("began_us", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("beyond", BigInteger, nullable=False),
    Column("place", LargeBinary, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Column("ended_records", BigInteger, nullable=False),
    comment="One row: how far what is stored has been compared with its checksums, and when all of it was: scrub.py.",
)

damage = Table(
    "damage",
    metadata,
    Column("what", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    Column("found_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="What was found damaged or missing, and is still; `seen_us`: the begin of the turn that saw it last.",
)

owner = Table(
    "owner",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("process", Integer, nullable=False),
    comment="One row: the fencing epoch. Each head-end that opens the store to own it raises it by one.",
)

meters = Table(
    "meters",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("host", Text),
    Column("port", Integer),
    Column("server", Integer, nullable=False),
    Column("system_title", LargeBinary, unique=True),
    Column("logical_device_name", LargeBinary, unique=True),
    Column("model", Text, nullable=False),
    Column("group_name", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("added_us", BigInteger, nullable=False),
    UniqueConstraint("host", "port", "server"),
    sqlite_autoincrement=True,
    comment="The registry. `protocol` is JSON without secrets. A meter without host dials in, as `logical_device_name` "
    "or as its name.",
)

network_nodes = Table(
    "network_nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("parent", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="The distribution network, a tree: see ipss_headend.network. No parent: an empty text.",
)

meter_places = Table(
    "meter_places",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("node", Text, nullable=False, index=True),
    Column("phases", Text, nullable=False),
    comment="Where meters stand in the network; no row: that is not known.",
)

weather = Table(
    "weather",
    metadata,
    Column("area_kind", Text, primary_key=True),
    Column("area", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("at_us", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("source", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="Observations and forecasts that others put, within bounds: see weather.py. The content is msgpack.",
)

meter_keys = Table(
    "meter_keys",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("wrapped", LargeBinary, nullable=False),
    comment="AES-256 key wrap with padding (RFC 5649) of the meter's secrets, see security/keystore.py.",
)

pending_keys = Table(
    "pending_keys",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("window_us", BigInteger, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    comment="New keys of a meter that it has not yet proved to have: see security/rotation.py.",
)

key_generations = Table(
    "key_generations",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    comment="Which keys of a meter are in use, counted from 0; no row: those that it was imported with.",
)

key_counters = Table(
    "key_counters",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
    comment="Our invocation counter under the pending keys, where it begins anew: the counter in use is near its end.",
)

transport_keys = Table(
    "transport_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("added_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="Manufacturers' transport keys, wrapped like meters' keys: see security/transport.py.",
)

key_fingerprints = Table(
    "key_fingerprints",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("meter_id", Integer, nullable=False),
    sqlite_with_rowid=False,
    comment="A keyed digest of each secret key: finds one key at two meters without opening any.",
)

keystore = Table(
    "keystore",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("cost", Integer, nullable=False),
    Column("block_size", Integer, nullable=False),
    Column("parallel", Integer, nullable=False),
    Column("check_value", LargeBinary, nullable=False),
    comment="One row: how the key-encryption key is made from a passphrase, and how a wrong one is told.",
)

keystore_secrets = Table(
    "keystore_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
    comment="With a hardware module: the master key, wrapped by it; and what moved into it, wrapped by the master key.",
)

layouts = Table(
    "layouts",
    metadata,
    Column("layout_id", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("class_id", Integer, nullable=False),
    Column("logical_name", Text, nullable=False),
    Column("attribute", SmallInteger, nullable=False),
    comment="What a line is read from. Its columns are in layout_columns; the same content is one layout.",
)

layout_columns = Table(
    "layout_columns",
    metadata,
    Column("layout_id", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("class_id", Integer, nullable=False),
    Column("logical_name", Text, nullable=False),
    Column("attribute", SmallInteger, nullable=False),
    Column("data_index", Integer, nullable=False),
    Column("scaler", SmallInteger),
    Column("unit", Text, nullable=False),
    Column("name", Text, nullable=False),
    sqlite_with_rowid=False,
)

readings = Table(
    "readings",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("layout_id", Integer, primary_key=True),
    Column("capture_time_us", BigInteger, primary_key=True),
    Column("entry_hash", BigInteger, primary_key=True),
    Column("deviation_min", SmallInteger, nullable=False),
    Column("clock_status", SmallInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("quality", Integer, nullable=False),
    Column("cells", LargeBinary, nullable=False),
    Column("crc", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (capture_time_us)",
    comment="In PostgreSQL one partition a month, see partitions.py.",
)

ledger = Table(
    "ledger",
    metadata,
    Column("batch_id", Number, primary_key=True),
    Column("written_us", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("readings", Integer, nullable=False),
    sqlite_autoincrement=True,
    comment="One row a transaction that added readings: their sum is how many there must be.",
)

events = Table(
    "events",
    metadata,
    Column("event_id", Number, primary_key=True),
    Column("meter_id", Number, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Code, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
)

refusals = Table(
    "refusals",
    metadata,
    Column("refusal_id", Number, primary_key=True),
    Column("meter_id", Number, nullable=False),
    Column("request_id", BigInteger, nullable=False),
    Column("item", Code, nullable=False),
    Column("code", Code, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    sqlite_autoincrement=True,
    comment="Request numbers start again with each epoch.",
)

ends = Table(
    "ends",
    metadata,
    Column("end_id", Number, primary_key=True),
    Column("meter_id", Number, nullable=False),
    Column("request_id", BigInteger, nullable=False),
    Column("outcome", Code, nullable=False),
    Column("exchanges", Integer, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

invocation_counters = Table(
    "invocation_counters",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
    comment="The lowest counter of ours never yet granted. It only rises.",
)

restore_guard = Table(
    "restore_guard",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("instance", Text, nullable=False),
    Column("grants", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("restored", Text, nullable=False),
    comment="One row, compared with the marker file beside the store: see restore.py. `restored`: why nothing is sent.",
)

peer_counters = Table(
    "peer_counters",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("high_water", BigInteger, nullable=False),
    comment="The highest counter of the meter's that was believed. It only rises, until the key changes.",
)

log = Table(
    "log",
    metadata,
    Column("sequence", Number, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("topic", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("crc", BigInteger, nullable=False),
    sqlite_autoincrement=True,
    comment="Everything that happened, numbered without a gap, for readers with a cursor: see log.py.",
)

event_acknowledgements = Table(
    "event_acknowledgements",
    metadata,
    Column("event_id", Number, primary_key=True, autoincrement=False),
    Column("principal", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

rpc_keys = Table(
    "rpc_keys",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("method", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("answer", LargeBinary),
    comment="Idempotency keys of RPC calls. No answer: begun, and the process died in it.",
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("password", Text),
    Column("disabled", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("locked_until_us", BigInteger, nullable=False),
    Column("added_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="People and other systems that call. `password`: Argon2id, or none; see security/identity.py.",
)

account_certificates = Table(
    "account_certificates",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("added_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

account_roles = Table(
    "account_roles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    sqlite_with_rowid=False,
    comment="`scope`: a group of meters, or * for all.",
)

quarantine_senders = Table(
    "quarantine_senders",
    metadata,
    Column("system_title", LargeBinary, primary_key=True),
    Column("address", Text, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False, index=True),
    Column("pushes", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="Who pushed and is in no registry, by the title that it gave itself: see quarantine.py.",
)

quarantine_pushes = Table(
    "quarantine_pushes",
    metadata,
    Column("push_id", Number, primary_key=True),
    Column("system_title", LargeBinary, nullable=False, index=True),
    Column("received_us", BigInteger, nullable=False),
    Column("wpdu", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

plugin_cursors = Table(
    "plugin_cursors",
    metadata,
    Column("plugin", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    comment="The last entry of the log that each plugin has dealt with.",
)

plugin_effects = Table(
    "plugin_effects",
    metadata,
    Column("plugin", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    comment="What plugins emitted, once for each key. The content is msgpack.",
)

reading_flags = Table(
    "reading_flags",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("layout_id", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("capture_time_us", BigInteger, primary_key=True),
    Column("flags", Integer, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="What validation said of one column of a line, or of one that is missing. Flags are added only.",
)

read_schedules = Table(
    "read_schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("principal", Text, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="Read plans that were made by the RPC; the content is msgpack, as a table [[plans]].",
)

parameter_plans = Table(
    "parameter_plans",
    metadata,
    Column("plan", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("principal", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="What is to be written to meters, as param.plan was asked; the content is msgpack.",
)

estimates = Table(
    "estimates",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("layout_id", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("capture_time_us", BigInteger, primary_key=True),
    Column("noted_us", BigInteger, nullable=False),
    Column("value", BigInteger),
    Column("method", Text, nullable=False),
    Index("estimates_wanted", "value", "noted_us"),
    sqlite_with_rowid=False,
    comment="Intervals that are missing, and what was estimated for them. No value yet: it may still be read. A "
    "reading that comes later stands; the estimate is kept.",
)

plugin_states = Table(
    "plugin_states",
    metadata,
    Column("plugin", Text, primary_key=True),
    Column("enabled", Integer),
    Column("settings", LargeBinary),
    Column("principal", Text, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    comment="What was said of plugins while the head-end ran; it goes before the configuration. None: as configured.",
)

incidents = Table(
    "incidents",
    metadata,
    Column("incident_id", Number, primary_key=True),
    Column("area", Text, nullable=False),
    Column("area_kind", Text, nullable=False, server_default="group"),
    Column("part_of", BigInteger),
    Column("opened_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("closed", Integer, nullable=False),
    Column("signals", LargeBinary, nullable=False),
    Column("dropped", Integer, nullable=False),
    Column("classes", LargeBinary),
    Index("incidents_open", "closed", "area"),
    sqlite_autoincrement=True,
    comment="Signals of one area that belong together, and what plugins say that it is. No classes: not asked yet. "
    "`area` is a node of the network, a shared line, or a group of meters, by `area_kind`. `part_of`: the larger one "
    "that took it in.",
)

event_classes = Table(
    "event_classes",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("at_us", BigInteger, primary_key=True),
    Column("code", BigInteger, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("said_by", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="What a maker's event codes mean, as plugins said it.",
)

marks = Table(
    "marks",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("layout_id", Integer, primary_key=True),
    Column("from_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("gaps", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
    comment="Capture times read whole: from..until without the gaps, see marks.py.",
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", LargeBinary, primary_key=True),
    Column("octets", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("not_after_us", BigInteger, nullable=False),
    Column("targets", Integer, nullable=False),
    sqlite_with_rowid=False,
    comment="What was asked for, in the canonical octets that people sign (docs/commands.md); the rest is for queries.",
)

order_signatures = Table(
    "order_signatures",
    metadata,
    Column("order_id", LargeBinary, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("signature", LargeBinary, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

commands = Table(
    "commands",
    metadata,
    Column("command_id", LargeBinary, primary_key=True),
    Column("order_id", LargeBinary, nullable=False, index=True),
    Column("meter_id", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("quarantined", Integer, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("alarmed", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Index("commands_by_state", "state", "due_us"),
    sqlite_with_rowid=False,
    comment="One a meter of an order, with its state in the machine of field/control/machine.py.",
)

spends = Table(
    "spends",
    metadata,
    Column("spend_id", Number, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("group_name", Text, nullable=False),
    Column("budget_us", BigInteger, nullable=False),
    Column("command_id", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
    comment="What was taken from the budgets, on the budgets' own clock.",
)

spreads = Table(
    "spreads",
    metadata,
    Column("subject", LargeBinary, primary_key=True),
    Column("ring", Integer, nullable=False),
    Column("failed_before", Integer, nullable=False),
    Column("halted", Text, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="Where what goes out in rings stands, by its order: see ipss_headend.rings.",
)

control_state = Table(
    "control_state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("stopped", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("budget_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    comment="One row: the stop switch, and the budgets' clock, which runs while the head-end does.",
)

protected = Table(
    "protected",
    metadata,
    Column("meter_id", Integer, primary_key=True, autoincrement=False),
    Column("system_title", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("removal_by", Text, nullable=False),
    comment="The never-disconnect list. A row that goes without an audit record protects on.",
)

set_points = Table(
    "set_points",
    metadata,
    Column("meter_id", Integer, primary_key=True),
    Column("function", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("revert_s", Integer, nullable=False),
    Column("exclusive", Integer, nullable=False),
    sqlite_with_rowid=False,
    comment="What is wanted of inverters and storage: one wish a source and function. A renewal replaces it.",
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False, index=True),
    Column("principal", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    comment="The audit trail, a chain: see security/audit.py.",
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
