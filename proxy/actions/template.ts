/** Text with `{name}` in it: texts and names in turn, beginning and ending with a text. */
export interface Template {
  readonly texts: readonly string[];
  readonly names: readonly string[];
}

export function compileTemplate(text: string): Template {
  const parts = text.split(/\{([^{}]*)\}/);
  return {
    texts: parts.filter((_, index) => index % 2 === 0),
    names: parts.filter((_, index) => index % 2 === 1),
  };
}

/** An unknown name is left empty; manifests are held to known ones. */
export function fillIn({ texts, names }: Template, values: Readonly<Record<string, string>>): string {
  let filled = texts[0] ?? "";
  for (const [index, name] of names.entries()) filled += (values[name] ?? "") + (texts[index + 1] ?? "");
  return filled;
}
