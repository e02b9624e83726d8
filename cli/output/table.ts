import { cellsOf, widthOf } from "./style.ts";

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  readonly align?: "left" | "right";
  /** May be cut to this many characters, with an ellipsis, when the terminal is narrow. Absent: never cut. */
  readonly widthMin?: number;
  /** Dropped when even that does not help, the highest number first. Absent: never dropped. */
  readonly drop?: number;
}

const GAP = "  ";

/**
 * A table that fits into `width` characters: columns are cut, widest first, then dropped. Columns that are empty in
 * every row are left out. No trailing spaces; "" when there are no rows.
 */
export function renderTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  { width, heading = (text) => text }: { width: number; heading?: (text: string) => string },
): string {
  if (rows.length === 0) return "";
  let shown = columns
    .map((column) => ({ column, cells: rows.map(column.cell) }))
    .filter(({ cells }) => cells.some((cell) => cell !== ""));
  const naturalWidth = ({ column, cells }: (typeof shown)[number]) =>
    Math.max(widthOf(column.title), ...cells.map(widthOf));
  let widths = fit(
    shown.map(naturalWidth),
    shown.map(({ column }) => column.widthMin),
    width,
  );
  while (total(widths) > width) {
    const droppable = shown.filter(({ column }) => column.drop !== undefined);
    if (droppable.length === 0) break;
    const first = droppable.reduce((a, b) => ((b.column.drop ?? 0) > (a.column.drop ?? 0) ? b : a));
    shown = shown.filter((entry) => entry !== first);
    widths = fit(
      shown.map(naturalWidth),
      shown.map(({ column }) => column.widthMin),
      width,
    );
  }
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, index) =>
        pad(cut(cell, widths[index] ?? 0), widths[index] ?? 0, shown[index]?.column.align),
      )
      .join(GAP)
      .trimEnd();
  return [
    heading(line(shown.map(({ column }) => column.title))),
    ...rows.map((_row, index) => line(shown.map(({ cells }) => cells[index] ?? ""))),
  ].join("\n");
}

function total(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width, 0) + GAP.length * Math.max(0, widths.length - 1);
}

/** Takes single characters from the widest column that may be cut, until the row fits or none may. */
function fit(natural: readonly number[], minimal: readonly (number | undefined)[], width: number): number[] {
  const widths = [...natural];
  while (total(widths) > width) {
    let widest = -1;
    widths.forEach((own, index) => {
      const least = minimal[index];
      if (least !== undefined && own > least && own > (widths[widest] ?? 0)) widest = index;
    });
    if (widest < 0) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
  }
  return widths;
}

/** At most `width` characters, the last one an ellipsis where something is missing. Colours are lost with the cut. */
export function cut(text: string, width: number): string {
  const cells = cellsOf(text);
  if (cells.length <= width) return text;
  return width <= 0 ? "" : `${cells.slice(0, width - 1).join("")}…`;
}

function pad(text: string, width: number, align: "left" | "right" = "left"): string {
  const space = " ".repeat(Math.max(0, width - widthOf(text)));
  return align === "right" ? space + text : text + space;
}

/** Breaks words into lines of at most `width` characters; every line after the first gets `indent` before it. */
export function wrapText(text: string, width: number, indent = ""): string {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line !== "" && widthOf(line) + 1 + widthOf(word) > width) {
        lines.push(line);
        line = word;
      } else line = line === "" ? word : `${line} ${word}`;
    }
    lines.push(line);
  }
  return lines.map((line, index) => (index === 0 ? line : indent + line)).join("\n");
}
