"""The HTTP application: the table of all routes, behind the guard.

Given a Service; holds no state of its own but the sign that the server is closing. Every route is described
in openapi.py, and a test holds the two together.
"""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from quinze.errors import QuinzeError
from quinze.server import static_files
from quinze.server.errors import handle
from quinze.server.middleware import Guard
from quinze.server.routes import routes
from quinze.service.service import Service


def create_app(service: Service) -> Starlette:
    app = Starlette(
        routes=routes(),
        middleware=[Middleware(Guard, settings=service.settings)],
        exception_handlers={QuinzeError: handle, HTTPException: handle},
    )
    app.state.service = service
    app.state.closing = asyncio.Event()
    app.state.page_folder = static_files.page_folder()
    return app
