"""``python -m migrations``: brings the database of LIGHTBOX_MIGRATIONS_DATABASE_URL up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the catalog is, and who owns it."""

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_MIGRATIONS_", frozen=True)

    database_url: str


def upgrade(database_url: str) -> None:
    """Applies every migration that the database lacks. Harmless when there is none.

    Arguments:
        database_url: ``postgresql+asyncpg://…`` of the role that owns the tables.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    command.upgrade(config, "head")


if __name__ == "__main__":
    upgrade(Settings().database_url)
