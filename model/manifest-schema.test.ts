import { expect, test } from "vitest";
import { z } from "zod";
import { Manifest } from "./manifest.ts";

/** `npm run schema` writes it anew. */
test("the published JSON Schema is the one of the code", async () => {
  const schema = z.toJSONSchema(Manifest, { io: "input", target: "draft-7" });
  await expect(`${JSON.stringify(schema, null, 2)}\n`).toMatchFileSnapshot("manifest.schema.generated.json");
});
