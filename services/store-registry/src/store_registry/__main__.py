"""Start the service, or `migrate` its schema."""

from entrepot_chassis import lifecycle, postgres
from store_registry import app
from store_registry.settings import Settings


def main() -> None:
    lifecycle.main(
        service=app.SERVICE,
        settings=Settings,
        run=app.run,
        migrations=postgres.Migrations(package="store_registry", schema="store_registry"),
    )


if __name__ == "__main__":
    main()
