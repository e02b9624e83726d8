import { stripVTControlCharacters } from "node:util";

/** Colours and weights; plain text where they are not wanted. */
export class Style {
  readonly #on: boolean;
  constructor(on: boolean) {
    this.#on = on;
  }
  bold = (text: string): string => this.#wrap(text, 1, 22);
  dim = (text: string): string => this.#wrap(text, 2, 22);
  red = (text: string): string => this.#wrap(text, 31, 39);
  green = (text: string): string => this.#wrap(text, 32, 39);
  yellow = (text: string): string => this.#wrap(text, 33, 39);
  cyan = (text: string): string => this.#wrap(text, 36, 39);
  /** One of six colours that differ well, always the same for the same text. */
  named = (text: string, key: string): string => {
    let hash = 0;
    for (const character of key) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
    return this.#wrap(text, [36, 33, 35, 32, 34, 31][hash % 6] ?? 36, 39);
  };
  #wrap(text: string, open: number, close: number): string {
    return this.#on && text !== "" ? `\u001b[${open}m${text}\u001b[${close}m` : text;
  }
}

const graphemes = new Intl.Segmenter();

/** The characters of `text` as a terminal shows them, one cell each; colours are left out. */
export function cellsOf(text: string): string[] {
  const plain = stripVTControlCharacters(text);
  // oxlint-disable-next-line no-control-regex -- The usual case, and many times faster.
  return /^[\u0000-\u007f]*$/.test(plain)
    ? plain.split("")
    : Array.from(graphemes.segment(plain), ({ segment }) => segment);
}

/** Cells a terminal needs for `text`. */
export function widthOf(text: string): number {
  return cellsOf(text).length;
}

// oxlint-disable-next-line no-control-regex -- Control characters are what this is about.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** What came from a service, made harmless for a terminal: no control characters but tabs, colours only if `colors`. */
export function printable(text: string, colors = false): string {
  if (!colors) return stripVTControlCharacters(text).replaceAll(CONTROLS, "");
  // Every second piece is the inside of a colour sequence.
  // oxlint-disable-next-line no-control-regex
  const pieces = text.split(/\u001b\[([\d;]*)m/);
  return pieces
    .map((piece, index) =>
      index % 2 === 1 ? `\u001b[${piece}m` : stripVTControlCharacters(piece).replaceAll(CONTROLS, ""),
    )
    .join("");
}
