"""YAML documents that people write, read into pydantic models; an error names the line it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from dure.errors import FileMissing, InvalidDocument, MalformedYaml, WrongEncoding, nearest
from dure.language import Words, visible

Document = TypeVar("Document", bound=BaseModel)
Node = yaml.nodes.Node


class Strict(BaseModel):
    """A frozen document in which an unknown key is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bilingual(Strict):
    """A short text in both languages, without characters that would hide or turn around what stands beside it."""

    en: str
    ko: str

    @field_validator("en", "ko")
    @classmethod
    def _visible(cls, text: str) -> str:
        if visible(text) != text:
            raise ValueError("the text holds control characters")
        return text

    def words(self) -> Words:
        return Words(self.en, self.ko)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The file's text; raises FileMissing or WrongEncoding."""
    if not path.is_file():
        raise FileMissing(path=path)
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        raise WrongEncoding(path=path, encoding=encoding, position=error.start) from None


def read_document(path: Path, model: type[Document]) -> Document:
    """One YAML file as `model`; raises FileMissing, WrongEncoding, MalformedYaml or InvalidDocument."""
    return parse_document(read_text(path), model, str(path))


def parse_document(text: str, model: type[Document], path: str = "<text>") -> Document:
    """As `read_document`, from text; `path` is only the name used in errors."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data: Any = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = _sentence(error.problem or "it cannot be read")
        raise MalformedYaml(path=path, line=line, column=column, problem=said) from None
    except yaml.YAMLError as error:
        raise MalformedYaml(path=path, line=1, column=1, problem=_sentence(str(error))) from None
    if not isinstance(data, dict):
        problem = Words(
            "The document must be a list of `name: value` lines", "문서는 `이름: 값` 행들로 이루어져야 합니다"
        )
        hint = Words("Start from an example in the documentation.", "문서의 예시에서 시작하십시오.")
        raise InvalidDocument(path=path, line=1, field="document", problem=problem, hint=hint)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _invalid(error, node, model, path) from None


def _invalid(error: ValidationError, node: Node | None, model: type[BaseModel], path: str) -> InvalidDocument:
    problems = error.errors()
    # A misspelt key is both unknown and missing: its nearest name helps more.
    first = next((item for item in problems if item["type"] == "extra_forbidden"), problems[0])
    location = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    field = ".".join(str(part) for part in location) or "document"
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        problem = Words("This name is not known here", "여기서 쓰지 않는 이름입니다")
        hint = nearest(str(location[-1]), known)
    elif first["type"] == "missing":
        problem = Words("It is required and not there", "꼭 있어야 하는데 없습니다")
        hint = Words(f"Add '{location[-1]}:' at that place.", f"그 자리에 '{location[-1]}:'을(를) 더하십시오.")
    else:
        problem = _sentence(first["msg"].removeprefix("Value error, "))
        hint = Words("Correct the value on that line.", "그 행의 값을 고치십시오.")
    return InvalidDocument(path=path, line=_line(node, location), field=field, problem=problem, hint=hint)


def _sentence(problem: str) -> Words:
    """A parser's own English sentence; the Korean one says whose words they are."""
    text = problem.strip().rstrip(".")
    text = text[:1].upper() + text[1:]
    return Words(text, f"읽는 프로그램의 설명: {text}")


def _line(node: Node | None, location: list[int | str]) -> int:
    """The line of the deepest node that `location` reaches; parts that pydantic adds are passed over."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.nodes.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
        elif isinstance(node, yaml.nodes.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _fields_at(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """Names of the fields a document may have at `location`, as far as the models say."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        found: list[type[BaseModel]] = []
        for candidate in current:
            field = candidate.model_fields.get(str(part))
            found += _models_in(field.annotation) if field else []
        current = found or current
    return [name for candidate in current for name in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
