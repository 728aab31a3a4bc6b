"""Where the order of a set decides something, found by reading the syntax tree.

A name is taken for a set where its function annotates or assigns it so; an attribute, where the classes that declare
it all make it a set. What sorts, counts or tests membership is free to iterate.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

TYPES = {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}
ORDER_FREE = {"sorted", "set", "frozenset", "any", "all", "len", "min", "max"}
ORDERED = {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "deque", "next", "reversed", "chain"}
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module


def name_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def is_set_type(annotation: ast.expr) -> bool:
    return name_of(annotation.value if isinstance(annotation, ast.Subscript) else annotation) in TYPES


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module, without those of functions inside it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, SCOPES):
            yield from own_nodes(child)


def declarations(nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.expr, bool]]:
    """(target, is it a set) for each annotation and each assignment of something recognisable."""
    for node in nodes:
        if isinstance(node, ast.AnnAssign):
            yield node.target, is_set_type(node.annotation)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield target, is_set(node.value, set(), set())


def set_attributes(trees: Iterable[ast.Module]) -> set[str]:
    """Attributes that are a set wherever a class declares them (in its body, or as self.x)."""
    sets: set[str] = set()
    others: set[str] = set()
    for tree in trees:
        for owner in ast.walk(tree):
            if not isinstance(owner, ast.ClassDef):
                continue
            in_body = [(target, found) for target, found in declarations(owner.body) if isinstance(target, ast.Name)]
            on_self = [
                (target, found)
                for target, found in declarations(ast.walk(owner))
                if isinstance(target, ast.Attribute) and name_of(target.value) == "self"
            ]
            for target, found in in_body + on_self:
                (sets if found else others).add(name_of(target) or "")
    return sets - others


def is_set(node: ast.expr, names: set[str], attributes: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return name_of(node.func) in {"set", "frozenset"}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return is_set(node.left, names, attributes) or is_set(node.right, names, attributes)
    if isinstance(node, ast.Attribute):
        return node.attr in attributes
    return isinstance(node, ast.Name) and node.id in names


def set_names(scope: ast.AST) -> set[str]:
    """Local names and arguments of one function that hold a set."""
    names = {target.id for target, found in declarations(own_nodes(scope)) if found and isinstance(target, ast.Name)}
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
        names |= {item.arg for item in arguments if item.annotation is not None and is_set_type(item.annotation)}
    return names


def order_free(nodes: Iterable[ast.AST]) -> set[int]:
    """Comprehensions whose result does not depend on the order: arguments of sorted, any, len and the like."""
    free: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Call) and name_of(node.func) in ORDER_FREE and not node.keywords:
            free.update(id(argument) for argument in node.args)
    return free


def iterated_by(node: ast.AST, free: set[int]) -> list[ast.expr]:
    """What a node goes through in order, and shows the order of."""
    if isinstance(node, ast.For):
        return [node.iter]
    if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.DictComp) and id(node) not in free:
        return [generator.iter for generator in node.generators]
    if isinstance(node, ast.Starred):
        return [node.value]
    if isinstance(node, ast.Call) and name_of(node.func) in ORDERED:
        return list(node.args)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pop":
        return [] if node.args else [node.func.value]
    return []


def ordered_uses(tree: ast.Module, attributes: set[str]) -> Iterator[tuple[int, str]]:
    """(line, expression) of each place where the order of a set decides."""
    module_names = set_names(tree)
    for scope in ast.walk(tree):
        if not isinstance(scope, SCOPES):
            continue
        nodes = list(own_nodes(scope))
        names, free = module_names | set_names(scope), order_free(nodes)
        for node in nodes:
            for expression in iterated_by(node, free):
                if is_set(expression, names, attributes):
                    yield getattr(node, "lineno", 1), ast.unparse(expression)
