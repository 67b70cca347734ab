"""Start the service, or `migrate` its schema."""

from entrepot_chassis import lifecycle, postgres
from motion_engine import app
from motion_engine.settings import Settings


def main() -> None:
    lifecycle.main(
        service="motion-engine",
        settings=Settings,
        run=app.run,
        migrations=postgres.Migrations(package="motion_engine", schema="motion_engine"),
    )


if __name__ == "__main__":
    main()
