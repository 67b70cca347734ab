"""Start the service, or `migrate` its schema."""

from api_gateway import app
from api_gateway.settings import Settings
from entrepot_chassis import lifecycle, postgres


def main() -> None:
    lifecycle.main(
        service="api-gateway",
        settings=Settings,
        run=app.run,
        migrations=postgres.Migrations(package="api_gateway", schema="api_gateway"),
    )


if __name__ == "__main__":
    main()
