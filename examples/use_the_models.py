"""The tables as ordinary SQLModel classes, and API schemas made of their bases.

Run it on a migrated database: DB_DATABASE_URL=… python examples/use_the_models.py
"""

from __future__ import annotations

from sqlmodel import Session, col, select

from ragstore import DatabaseConnection
from ragstore.models import Chunk, Collection, Document, DocumentBase


class DocumentIn(DocumentBase):
    """What a client sends: with FastAPI, the type of a request's body."""

    paragraphs: list[str]


class DocumentOut(DocumentBase):
    """What a client gets: with FastAPI, the ``response_model``."""

    id: int
    paragraphs: list[str]


def add_document(session: Session, collection: Collection, sent: DocumentIn) -> DocumentOut:
    """Store a document with one chunk for each paragraph."""
    document = Document(
        key=sent.key,
        title=sent.title,
        meta=sent.meta,
        collection=collection,
        chunks=[Chunk(text=paragraph) for paragraph in sent.paragraphs],
    )
    session.add(document)
    session.commit()
    texts = [chunk.text for chunk in document.chunks]
    return DocumentOut(**document.model_dump(), paragraphs=texts)


def main() -> None:
    """Add a document, find it by its metadata, change it, and remove it all."""
    with DatabaseConnection() as connection, connection.session() as session:
        collection = Collection(name="example")
        sent = DocumentIn(key="tea", meta={"lang": "en"}, paragraphs=["Boil water.", "Wait."])
        print(add_document(session, collection, sent).model_dump_json())

        english = select(Document).where(Document.meta["lang"].astext == "en")
        document = session.exec(english).one()
        document.meta["checked"] = True
        session.commit()

        words = select(Chunk.text).join(Document).where(col(Document.key) == "tea")
        print(session.exec(words.order_by(col(Chunk.ordinal))).all())

        session.delete(collection)  # its documents and chunks go with it
        session.commit()


if __name__ == "__main__":
    main()
