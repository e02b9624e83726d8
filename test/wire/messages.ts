import * as fc from "fast-check";

const end = fc.constantFrom("\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r\n");
const space = fc.constantFrom("", " ", " ", " ", " ", "\t", "  ", "\u000b", "\u00a0", " \r\n ");
const name = fc.constantFrom(
  "Host",
  "host",
  "Content-Length",
  "content-length",
  "Content_Length",
  "Transfer-Encoding",
  "TRANSFER-ENCODING",
  "Connection",
  "Upgrade",
  "Expect",
  "TE",
  "Trailer",
  "X-A",
  "Cookie",
  "Keep-Alive",
  "X-Forwarded-For",
  "x\u00e9",
  "X-Gilliam-From",
  "Content-Length ",
  " X",
  "",
  "X\u0000Y",
);
const value = fc.constantFrom(
  "a",
  "a.test",
  "a.test:80",
  "0",
  "3",
  "5",
  "+5",
  "05",
  "5, 5",
  "0x5",
  "-1",
  "5 5",
  "99999999999999999999",
  "chunked",
  "Chunked",
  "chunked, chunked",
  "gzip, chunked",
  "chunked, gzip",
  "identity",
  "\tchunked",
  "chunked\u000b",
  "close",
  "keep-alive",
  "upgrade",
  "Upgrade, x-a",
  "websocket",
  "h2c",
  "100-continue",
  "",
  "a\u0000b",
  "a\rb",
  "a\nb",
  "caf\u00e9",
  "x".repeat(300),
);
const field = fc
  .tuple(name, space, fc.constantFrom(":", ":", ":", ":", ":", "", "="), space, value, space, end)
  .map(
    ([name, before, colon, after, value, behind, eol]) =>
      `${name}${before === " " ? "" : before}${colon}${after}${value}${behind}${eol}`,
  );
const goodField = fc.constantFrom(
  "X-B: c d \r\n",
  "Content-Length: 5\r\n",
  "Transfer-Encoding: chunked\r\n",
  "X-A: b\r\n",
  "Connection: close\r\n",
);
/** Request lines, good and bad. */
export const requestLine = fc
  .tuple(
    fc.constantFrom(
      "GET",
      "POST",
      "PUT",
      "HEAD",
      "OPTIONS",
      "DELETE",
      "PATCH",
      "CONNECT",
      "TRACE",
      "get",
      "G\u00e9T",
      "PRI",
      "",
    ),
    fc.constantFrom(" ", " ", " ", " ", "  ", "\t"),
    fc.constantFrom(
      "/",
      "/",
      "/a?b",
      "*",
      "http://a.test/",
      "http://a.test",
      "http://u@a.test/",
      "a.test:80",
      "//b",
      "/\u00e9",
      "/a#b",
      "/a b",
      "",
    ),
    fc.constantFrom(" ", " ", " ", " ", "  ", ""),
    fc.constantFrom(
      "HTTP/1.1",
      "HTTP/1.1",
      "HTTP/1.1",
      "HTTP/1.0",
      "HTTP/1.2",
      "HTTP/2.0",
      "HTTP/0.9",
      "http/1.1",
      "HTTP/1.01",
      "HTTP/11",
      "",
    ),
    end,
  )
  .map((parts) => parts.join(""));
const chunk = fc
  .tuple(
    fc.constantFrom("5", "5", "5", "05", "0x5", "+5", " 5", "5 ", "a", "fffffffffffffffff", "g", ""),
    fc.constantFrom("", "", "", ";a=b", ';a="b"', "; a", " ;a", ";\n", ";a\rb"),
    end,
    fc.constantFrom("hello", "hello", "hell", "hello!"),
    end,
  )
  .map((parts) => parts.join(""));
const goodChunk = fc.constantFrom("5\r\nhello\r\n", "A\r\n0123456789\r\n", "1;x=y\r\n!\r\n");
const lastChunk = fc.constantFrom(
  "0\r\n\r\n",
  "0\r\n\r\n",
  "000\r\n\r\n",
  "0\r\nX-T: 1\r\n\r\n",
  "0\n\n",
  "0\r\nContent-Length: 9\r\n\r\n",
  "0\r\n X: y\r\n\r\n",
);
const body = fc.oneof(
  fc.constantFrom("", "hello", "hello world"),
  fc
    .tuple(fc.array(fc.oneof(goodChunk, goodChunk, chunk), { maxLength: 3 }), lastChunk)
    .map(([chunks, last]) => chunks.join("") + last),
);
const edit = fc.tuple(
  fc.nat(),
  fc.constantFrom("insert", "delete", "replace"),
  fc.constantFrom("\r", "\n", "\u0000", " ", "\t", ":", ",", ";", "\u000b", "\u00ff", "\r\n", "0", "a"),
);
/**
 * Messages as Latin-1 text that begin with `first`: mostly sound, with framing fields, bodies of every kind, and at times a
 * byte too many or too few.
 */
export const message = (first: fc.Arbitrary<string>) =>
  fc
    .tuple(
      first,
      fc.constantFrom("Host: a.test\r\n", "Host: a.test\r\n", "Host: a.test\r\n", ""),
      fc.array(fc.oneof({ weight: 9, arbitrary: goodField }, { weight: 1, arbitrary: field }), {
        maxLength: 4,
      }),
      fc.oneof({ weight: 9, arbitrary: fc.constant("\r\n") }, { weight: 1, arbitrary: end }),
      body,
      fc.oneof(
        { weight: 2, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.array(edit, { maxLength: 2 }) },
      ),
    )
    .map(([line, host, fields, empty, body, edits]) => {
      let text = line + host + fields.join("") + empty + body;
      for (const [place, kind, what] of edits) {
        const at = place % (text.length + 1);
        text =
          text.slice(0, at) + (kind === "delete" ? "" : what) + text.slice(kind === "insert" ? at : at + 1);
      }
      return text;
    });

/** Status lines, good and bad. */
export const statusLine = fc
  .tuple(
    fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1"),
    fc.constantFrom(" ", " ", " ", "  ", "\t"),
    fc.constantFrom("200", "200", "204", "304", "404", "099", "600", "2x0", "20", "1000"),
    fc.constantFrom(" OK", " OK", "", " ", " a\u0000", " caf\u00e9"),
    end,
  )
  .map((parts) => parts.join(""));
