"""Start the service, or `migrate` its schema."""

from autoscaler import app
from autoscaler.settings import Settings
from entrepot_chassis import lifecycle, postgres


def main() -> None:
    lifecycle.main(
        service="autoscaler",
        settings=Settings,
        run=app.run,
        migrations=postgres.Migrations(package="autoscaler", schema="autoscaler"),
    )


if __name__ == "__main__":
    main()
