"""What the grammars call the things that code.py looks for, language by language.

A definition is a leaf (a function) or holds others (a class). A wrapper stands around one (a decorator, an
export) and belongs to it; what is transparent is only looked into (a class's body, an #ifdef).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Language:
    module: str
    function: str = "language"
    leaves: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()
    transparent: frozenset[str] = frozenset()

    def load(self) -> Any:
        """The tree-sitter language."""
        import tree_sitter

        return tree_sitter.Language(getattr(importlib.import_module(self.module), self.function)())


def _language(module: str, *, function: str = "language", **kinds: str) -> Language:
    split = {kind: frozenset(names.split()) for kind, names in kinds.items()}
    return Language(module, function, **split)


_JAVASCRIPT = {
    "leaves": (
        "function_declaration generator_function_declaration method_definition "
        "interface_declaration "
        "enum_declaration type_alias_declaration lexical_declaration "
        "variable_declaration expression_statement "
        "public_field_definition field_definition"
    ),
    "containers": "class_declaration abstract_class_declaration internal_module module",
    "wrappers": "export_statement ambient_declaration",
    "transparent": "class_body statement_block",
}
_C = {
    "leaves": (
        "function_definition preproc_function_def struct_specifier union_specifier "
        "enum_specifier type_definition"
    ),
    "wrappers": "template_declaration",
    "transparent": (
        "linkage_specification declaration_list field_declaration_list "
        "preproc_ifdef preproc_if preproc_else preproc_elif"
    ),
}

LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        "bash": _language("tree_sitter_bash", leaves="function_definition", transparent="if_statement"),
        "c": _language("tree_sitter_c", **_C),
        "cpp": _language(
            "tree_sitter_cpp",
            leaves=(
                "function_definition preproc_function_def enum_specifier type_definition concept_definition"
            ),
            containers="class_specifier struct_specifier union_specifier namespace_definition",
            wrappers=_C["wrappers"],
            transparent=_C["transparent"],
        ),
        "csharp": _language(
            "tree_sitter_c_sharp",
            leaves=(
                "method_declaration constructor_declaration destructor_declaration "
                "property_declaration "
                "operator_declaration conversion_operator_declaration indexer_declaration "
                "delegate_declaration "
                "enum_declaration local_function_statement event_declaration"
            ),
            containers=(
                "class_declaration struct_declaration interface_declaration "
                "record_declaration namespace_declaration"
            ),
            transparent="declaration_list global_statement file_scoped_namespace_declaration",
        ),
        "go": _language("tree_sitter_go", leaves="function_declaration method_declaration type_declaration"),
        "java": _language(
            "tree_sitter_java",
            leaves="method_declaration constructor_declaration compact_constructor_declaration",
            containers=(
                "class_declaration interface_declaration enum_declaration "
                "record_declaration "
                "annotation_type_declaration"
            ),
            transparent=("class_body interface_body enum_body enum_body_declarations annotation_type_body"),
        ),
        "javascript": _language("tree_sitter_javascript", **_JAVASCRIPT),
        "php": _language(
            "tree_sitter_php",
            function="language_php",
            leaves="function_definition method_declaration",
            containers=(
                "class_declaration interface_declaration trait_declaration enum_declaration "
                "namespace_definition"
            ),
            transparent="declaration_list enum_declaration_list compound_statement",
        ),
        "python": _language(
            "tree_sitter_python",
            leaves="function_definition",
            containers="class_definition",
            wrappers="decorated_definition",
            transparent=(
                "block if_statement elif_clause else_clause try_statement except_clause "
                "finally_clause with_statement"
            ),
        ),
        "ruby": _language(
            "tree_sitter_ruby",
            leaves="method singleton_method",
            containers="class module",
            transparent="body_statement singleton_class",
        ),
        "rust": _language(
            "tree_sitter_rust",
            leaves="function_item struct_item enum_item union_item macro_definition",
            containers="impl_item trait_item mod_item",
            transparent="declaration_list foreign_mod_item",
        ),
        "typescript": _language("tree_sitter_typescript", function="language_typescript", **_JAVASCRIPT),
        "tsx": _language("tree_sitter_typescript", function="language_tsx", **_JAVASCRIPT),
    }
)
