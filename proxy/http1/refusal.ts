import { type FailureCode, STATUS_BY_CODE, phraseOf } from "../failure.ts";

/**
 * A whole HTTP/1.1 response, Latin-1, for a failure of the proxy's own: status from STATUS_BY_CODE, the code in
 * `x-gilliam-reason`, `text` as its body. `connection` is the value of that field, or empty;
 * `moreFields` are lines that end in CR LF.
 */
export function refusalResponse(
  code: FailureCode,
  text: string,
  connection: string,
  dateField: string,
  headOnly: boolean,
  moreFields = "",
): string {
  const status = STATUS_BY_CODE[code];
  const body = Buffer.from(text).toString("latin1");
  const lines = [
    `HTTP/1.1 ${status} ${phraseOf(code)}`,
    "content-type: text/plain; charset=utf-8",
    `content-length: ${body.length}`,
    `x-gilliam-reason: ${code}`,
  ];
  if (status === 405) lines.push("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
  if (status === 503) lines.push("retry-after: 1");
  if (connection !== "") lines.push(`connection: ${connection}`);
  return `${lines.join("\r\n")}\r\n${moreFields}${dateField}\r\n${headOnly ? "" : body}`;
}
