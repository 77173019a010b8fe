"""Routes by decorators, over Starlette's: a function for each, and what it says of itself in the OpenAPI document."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, Unpack

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from periscope.api.openapi.declare import RouteArguments

if TYPE_CHECKING:
    from starlette.types import Scope

#: Takes the path's parameters by name, and `request` if it wants it.
Endpoint: TypeAlias = Callable[..., Awaitable[Response]]
EndpointT = TypeVar("EndpointT", bound=Endpoint)

_REQUEST: Final = "request"


class DocumentedRoute(Route):
    """A route that is named in the scope of its requests.

    Attributes:
        documentation: what the OpenAPI document has of it.
    """

    def __init__(self, path: str, endpoint: Endpoint, methods: Sequence[str], documentation: RouteArguments) -> None:
        super().__init__(path, _taking_parameters(endpoint), methods=methods, name=endpoint.__name__)
        self.documentation = documentation

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as Starlette's route does, and put `route` into the scope."""
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}


class APIRouter:
    """Owns some routes, in the order in which they are tried.

    Args:
        prefix: of all their paths.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.routes: list[DocumentedRoute] = []

    def add_api_route(
        self, path: str, endpoint: Endpoint, *, methods: Sequence[str], **documentation: Unpack[RouteArguments]
    ) -> None:
        """Have the endpoint answer requests for this path."""
        self.routes.append(DocumentedRoute(self._prefix + path, endpoint, methods, documentation))

    def api_route(
        self, path: str, *, methods: Sequence[str], **documentation: Unpack[RouteArguments]
    ) -> Callable[[EndpointT], EndpointT]:
        """`add_api_route` as a decorator."""

        def added(endpoint: EndpointT) -> EndpointT:
            self.add_api_route(path, endpoint, methods=methods, **documentation)
            return endpoint

        return added

    def post(self, path: str, **documentation: Unpack[RouteArguments]) -> Callable[[EndpointT], EndpointT]:
        """`api_route` for the method POST alone."""
        return self.api_route(path, methods=["POST"], **documentation)

    def delete(self, path: str, **documentation: Unpack[RouteArguments]) -> Callable[[EndpointT], EndpointT]:
        """`api_route` for the method DELETE alone."""
        return self.api_route(path, methods=["DELETE"], **documentation)

    def include_router(self, other: APIRouter) -> None:
        """Have the other's routes, too, behind those of this one."""
        self.routes += other.routes


def _taking_parameters(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint, given what its signature names."""
    names = list(inspect.signature(endpoint).parameters)
    if names == [_REQUEST]:
        return endpoint
    of_path = [name for name in names if name != _REQUEST]
    wants_request = _REQUEST in names

    async def called(request: Request) -> Response:
        given: dict[str, Any] = {name: request.path_params[name] for name in of_path}
        return await endpoint(**given, **({_REQUEST: request} if wants_request else {}))

    return called
