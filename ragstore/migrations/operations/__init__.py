"""Operations for revision files, beside Alembic's own: ``op.ensure_extension`` and so on.

Importing this package registers them. They work online and with ``--sql``, autogenerate writes
them, and each has a reverse where it was made with what that needs.
"""

from __future__ import annotations

from ragstore.migrations.operations.base import IMPORT, Operation
from ragstore.migrations.operations.columns import (
    DropGeneratedOp,
    RegenerateColumnOps,
    SetGeneratedOp,
)
from ragstore.migrations.operations.constraints import (
    CommentOnConstraintOp,
    CreateConstraintOp,
    DropConstraintOp,
)
from ragstore.migrations.operations.decisions import RequireDecisionOp
from ragstore.migrations.operations.domains import AlterDomainOp, CreateDomainOp, DropDomainOp
from ragstore.migrations.operations.enums import (
    AddEnumValueOp,
    CreateEnumOp,
    DropEnumOp,
    RenameEnumValueOp,
    ReplaceEnumOp,
)
from ragstore.migrations.operations.extensions import (
    PGVECTOR_REFUSED_BELOW,
    PGVECTOR_WARNED_BELOW,
    EnsureExtensionOp,
    check_extension_version,
)
from ragstore.migrations.operations.functions import (
    CreateFunctionOp,
    DefineFunctionOp,
    DropFunctionOp,
)
from ragstore.migrations.operations.indexes import CreateIndexOnlineOp, DropIndexOnlineOp
from ragstore.migrations.operations.numbering import Numbering, SetNumberingOp
from ragstore.migrations.operations.remark import Remark
from ragstore.migrations.operations.renames import (
    RenameColumnOp,
    RenameConstraintOp,
    RenameIndexOp,
    RenameTableOp,
)
from ragstore.migrations.operations.schemas import DropSchemaIfEmptyOp, EnsureSchemaOp
from ragstore.migrations.operations.sequences import (
    AlterSequenceOp,
    CreateSequenceOp,
    DropSequenceOp,
)
from ragstore.migrations.operations.tables import (
    ResetTableOptionsOp,
    SetLoggedOp,
    SetTableOptionsOp,
)
from ragstore.migrations.operations.values import ConvertColumnOp, DropColumnOp, RestoreColumnOp
from ragstore.migrations.sqltext import SqlType

__all__ = [
    "IMPORT",
    "PGVECTOR_REFUSED_BELOW",
    "PGVECTOR_WARNED_BELOW",
    "AddEnumValueOp",
    "AlterDomainOp",
    "AlterSequenceOp",
    "CommentOnConstraintOp",
    "ConvertColumnOp",
    "CreateConstraintOp",
    "CreateDomainOp",
    "CreateEnumOp",
    "CreateFunctionOp",
    "CreateIndexOnlineOp",
    "CreateSequenceOp",
    "DefineFunctionOp",
    "DropColumnOp",
    "DropConstraintOp",
    "DropDomainOp",
    "DropEnumOp",
    "DropFunctionOp",
    "DropGeneratedOp",
    "DropIndexOnlineOp",
    "DropSchemaIfEmptyOp",
    "DropSequenceOp",
    "EnsureExtensionOp",
    "EnsureSchemaOp",
    "Numbering",
    "Operation",
    "RegenerateColumnOps",
    "Remark",
    "RenameColumnOp",
    "RenameConstraintOp",
    "RenameEnumValueOp",
    "RenameIndexOp",
    "RenameTableOp",
    "ReplaceEnumOp",
    "RequireDecisionOp",
    "ResetTableOptionsOp",
    "RestoreColumnOp",
    "SetGeneratedOp",
    "SetLoggedOp",
    "SetNumberingOp",
    "SetTableOptionsOp",
    "SqlType",
    "check_extension_version",
]
