import { defineFilter } from "gilliam/filter";

/** Who asks for variant b in a header gets it; which answered is counted, logged and told. */
export default defineFilter<{ header: string }>({
  name: "ab",
  onRequest(request, context) {
    const variant = request.headers.get(context.options.header) === "b" ? "b" : "a";
    if (variant === "b") context.routeTo("web-b");
    context.count("variant", variant);
    context.annotate("variant", variant);
    context.state.set("variant", variant);
  },
  onResponse(response, context) {
    response.headers.set("x-variant", String(context.state.get("variant")));
    response.headers.append("vary", context.options.header);
  },
});
