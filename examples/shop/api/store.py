"""What the shop knows, in PostgreSQL, over a few connections that are opened anew when they break."""

import contextlib
import queue
import time

import pg

MIGRATIONS = [
    """CREATE TABLE products (
         id integer PRIMARY KEY, name text NOT NULL, price_cents integer NOT NULL CHECK (price_cents >= 0))""",
    """INSERT INTO products VALUES
         (1, 'Espresso cup', 1450), (2, 'Tea kettle', 5900), (3, 'Bread knife', 3275), (4, 'Oak board', 4125)""",
    # `executions` counts how often an order arrived under one key: more than one is a request sent twice.
    """CREATE TABLE orders (
         key text PRIMARY KEY, product integer NOT NULL REFERENCES products, quantity integer NOT NULL,
         executions integer NOT NULL DEFAULT 1, placed_at timestamptz NOT NULL DEFAULT now())""",
    "CREATE INDEX orders_by_time ON orders (placed_at DESC)",
]


class Store:
    def __init__(self, url, connections=8):
        self._url = url
        self._idle = queue.LifoQueue()  # The one used last comes first; None stands for one not opened yet.
        for _ in range(connections):
            self._idle.put(None)

    def migrate(self, log):
        """Brings the tables up to date, waiting for the database as long as it takes. Safe in several instances at once."""
        said = None
        while True:
            try:
                return self._migrate_once(log)
            except (pg.ConnectionLost, pg.Error) as error:
                if isinstance(error, pg.Error) and not error.fatal:
                    raise
                if str(error) != said:
                    said = str(error)
                    log(f"waiting for the database: {said}")
                time.sleep(0.2)

    def _migrate_once(self, log):
        with self._connection() as connection:
            connection.query("SELECT pg_advisory_lock(7001)")  # Let go of when the connection ends, at the latest.
            connection.query("CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY)")
            done = int(connection.query("SELECT count(*) AS n FROM migrations")[0]["n"])
            for number, statement in enumerate(MIGRATIONS[done:], start=done + 1):
                connection.query("BEGIN")
                connection.query(statement)
                connection.query("INSERT INTO migrations VALUES ($1)", [number])
                connection.query("COMMIT")
                log(f"migration {number} applied")
            connection.query("SELECT pg_advisory_unlock(7001)")

    def products(self):
        rows = self._read("SELECT id, name, price_cents FROM products ORDER BY id")
        return [{"id": int(row["id"]), "name": row["name"], "priceCents": int(row["price_cents"])} for row in rows]

    def orders(self, limit):
        """How many orders there are, how many executions they took, and the newest ones."""
        sums = self._read("SELECT count(*) AS n, coalesce(sum(executions), 0) AS executions FROM orders")[0]
        rows = self._read(
            "SELECT o.*, p.name FROM orders o JOIN products p ON p.id = o.product ORDER BY placed_at DESC LIMIT $1", [limit]
        )
        return {"count": int(sums["n"]), "executions": int(sums["executions"]), "newest": [_order(row) for row in rows]}

    def order(self, key):
        rows = self._read("SELECT o.*, p.name FROM orders o JOIN products p ON p.id = o.product WHERE key = $1", [key])
        return _order(rows[0]) if rows else None

    def place(self, key, product, quantity):
        """Stores an order once, however often it arrives under the same key. None when there is no such product."""
        try:
            self._write(
                """INSERT INTO orders (key, product, quantity) VALUES ($1, $2, $3)
                   ON CONFLICT (key) DO UPDATE SET executions = orders.executions + 1""",
                [key, product, quantity],
            )
        except pg.Error as error:
            if error.code == "23503":  # foreign_key_violation
                return None
            raise
        return self.order(key)

    @contextlib.contextmanager
    def _connection(self):
        """Borrows a connection, waiting for a free one. One that failed in any way is not used again."""
        connection = self._idle.get()
        try:
            if connection is None or connection.broken or connection.hung_up():
                connection = pg.connect(self._url)
            yield connection
        except pg.Error:
            raise  # The server refused the statement; the connection is as good as before, or marked broken.
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        finally:
            self._idle.put(connection)

    def _run(self, sql, parameters, may_repeat):
        """Runs one statement. After a lost connection it runs again when `may_repeat(error)` says so: PostgreSQL
        restarts now and then, and connections from before turn out to be dead only when they are used."""
        for attempt in range(12):
            try:
                with self._connection() as connection:
                    return connection.query(sql, parameters)
            except (pg.ConnectionLost, pg.Error) as error:
                if attempt == 11 or not may_repeat(error):
                    raise
                time.sleep(min(0.5, 0.02 * 2**attempt))

    def _read(self, sql, parameters=()):
        return self._run(sql, parameters, lambda error: isinstance(error, pg.ConnectionLost) or error.fatal)

    def _write(self, sql, parameters):
        """Never executed twice: repeated only when PostgreSQL cannot have seen it, or refused it as a whole."""
        return self._run(sql, parameters, lambda error: error.fatal if isinstance(error, pg.Error) else not error.sent)


def _order(row):
    return {
        "key": row["key"],
        "product": int(row["product"]),
        "name": row["name"],
        "quantity": int(row["quantity"]),
        "executions": int(row["executions"]),
        "placedAt": row["placed_at"],
    }
