"""`python -m motion_engine.mover`."""

from entrepot_chassis import lifecycle
from motion_engine.mover import app
from motion_engine.mover.settings import Settings

if __name__ == "__main__":
    lifecycle.main(service=app.SERVICE, settings=Settings, run=app.run)
