"""Studies, trials, dataset versions and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build the tables."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "tidemill_studies",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("dataset_version", sa.String(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("artifacts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tidemill_studies"),
        sa.UniqueConstraint("name", name="uq_tidemill_studies_name"),
    )
    op.create_table(
        "tidemill_trials",
        sa.Column("study_id", serial, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("fold_scores", sa.Text(), nullable=False),
        sa.Column("scores", sa.Text(), nullable=False),
        sa.Column("cost", sa.Text(), nullable=False),
        sa.Column("usage", sa.Text(), nullable=False),
        sa.Column("curve", sa.Text(), nullable=False),
        sa.Column("seed", sa.Text(), nullable=False),
        sa.Column("fidelity", sa.Text(), nullable=False),
        sa.Column("folds", sa.Integer(), nullable=False),
        sa.Column("artifacts", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["tidemill_studies.id"], name="fk_tidemill_trials_study_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "number", name="pk_tidemill_trials"),
    )
    op.create_table(
        "tidemill_dataset_versions",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("parents", sa.Text(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("artifacts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tidemill_dataset_versions"),
        sa.UniqueConstraint("dataset", "hash", name="uq_tidemill_dataset_versions_dataset"),
    )
    op.create_table(
        "tidemill_events",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("study_id", serial, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["tidemill_studies.id"], name="fk_tidemill_events_study_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tidemill_events"),
    )
    op.create_index("ix_tidemill_events_study_id", "tidemill_events", ["study_id"])
