"""The route table in force."""

import json
from dataclasses import replace

from sqlalchemy import Connection, insert, select, update

from gateway.routes import Route, RouteTable
from rollout.store.tables import route_table


def current(connection: Connection) -> RouteTable:
    document = connection.execute(select(route_table.c.document)).scalar()
    return RouteTable(0, {}) if document is None else RouteTable.from_json(json.loads(document))


def replace_route(connection: Connection, route: Route, now: float) -> RouteTable:
    """Put one model's route in force under the next version; the route's revision becomes that version.

    Versions are at least the seconds of the clock, so that the tables of a new database are newer than those of the
    one before: gateways never go back to an older version.
    """
    before = current(connection)
    version = max(before.version + 1, int(now))
    routes = {**before.routes, route.model: replace(route, revision=version)}
    table = RouteTable(version, routes)
    row = {"version": version, "document": json.dumps(table.to_json())}
    if not connection.execute(update(route_table).where(route_table.c.id == 1).values(**row)).rowcount:
        connection.execute(insert(route_table).values(id=1, **row))
    return table
