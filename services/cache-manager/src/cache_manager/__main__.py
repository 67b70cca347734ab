"""Start the service, or `migrate` its schema."""

from cache_manager import app
from cache_manager.settings import Settings
from entrepot_chassis import lifecycle, postgres


def main() -> None:
    lifecycle.main(
        service="cache-manager",
        settings=Settings,
        run=app.run,
        migrations=postgres.Migrations(package="cache_manager", schema="cache_manager"),
    )


if __name__ == "__main__":
    main()
