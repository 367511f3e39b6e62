"""Runs one step or service of the test cloud with Debian's own Python packages.

service.py wal FILE                      journal mode of a database that several readers share
service.py cascade FILE                  lets a Keystone database forget what belonged to deleted credentials
service.py rings FOLDER IP OBJ CONT ACC  one-device rings for Swift
service.py glance-manage|glance CONF     Glance's commands, which the library package has no program for
service.py swift ETC CONF APP            one Swift server in the foreground
"""
import sys


def cascade(path):
    """SQLite leaves these rows to foreign keys, which Keystone does not switch on: the next credential is then a 409."""
    import sqlite3

    db = sqlite3.connect(path, timeout=30)
    for table in ("application_credential_role", "application_credential_access_rule"):
        where = "application_credential_id"
        db.execute(f"DELETE FROM {table} WHERE {where} NOT IN (SELECT internal_id FROM application_credential)")
        db.execute(
            f"CREATE TRIGGER IF NOT EXISTS {table}_gone AFTER DELETE ON application_credential "
            f"BEGIN DELETE FROM {table} WHERE {where} = old.internal_id; END"
        )
    db.commit()


def wal(path):
    import sqlite3
    sqlite3.connect(path).execute("pragma journal_mode=wal")


def rings(folder, ip, *ports):
    from swift.common.ring import RingBuilder
    for kind, port in zip(("object", "container", "account"), ports):
        builder = RingBuilder(6, 1, 0)
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": ip, "port": int(port),
                         "device": "d1", "meta": ""})
        builder.rebalance()
        builder.get_ring().save("%s/%s.ring.gz" % (folder, kind))


def glance_manage(conf):
    sys.argv = ["glance-manage", "--config-file", conf, "db_sync"]
    from glance.cmd.manage import main
    main()


def glance(conf):
    sys.argv = ["glance-api", "--config-file", conf]
    from glance.cmd.api import main
    main()


def swift(etc, conf, app):
    from swift.common.utils import set_swift_dir
    set_swift_dir(etc)  # else it reads /etc/swift
    from swift.common.wsgi import run_wsgi
    extra = {}
    if app == "object-server":
        from swift.obj.server import global_conf_callback
        extra["global_conf_callback"] = global_conf_callback
    # Without `verbose` it logs to a syslog that may not be there.
    sys.exit(run_wsgi(conf, app, verbose=True, **extra))


COMMANDS = {"wal": wal, "cascade": cascade, "rings": rings, "glance-manage": glance_manage, "glance": glance, "swift": swift}
COMMANDS[sys.argv[1]](*sys.argv[2:])
