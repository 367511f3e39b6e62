"""Keystone for gunicorn. The configuration file comes in OS_KEYSTONE_CONFIG_FILES."""
import sys

# Keystone would parse gunicorn's arguments as its own and die.
sys.argv = ["keystone"]

from keystone.server.wsgi import initialize_public_application  # noqa: E402

application = initialize_public_application()
