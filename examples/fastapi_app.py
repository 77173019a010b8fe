"""Periscope inside of an app of yours: uvicorn --app-dir examples fastapi_app:app, then POST a picture to /describe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from periscope import Periscope, PeriscopeError, RequestError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Periscope() as periscope:
        app.state.periscope = periscope
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/describe")
async def describe(request: Request, question: str = "What is in the picture?") -> dict[str, str]:
    periscope: Periscope = request.app.state.periscope
    try:
        answer = await periscope.chat(question, images=[await request.body()])
    except RequestError as error:
        raise HTTPException(400, error.message) from error
    except PeriscopeError as error:
        raise HTTPException(503, error.message) from error
    return {"answer": answer.text}
