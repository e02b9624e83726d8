import { setting } from "../base/settings.ts";

/** What the command line takes from the environment, besides the usual NO_COLOR, FORCE_COLOR, TERM, HOME and DISPLAY. */
export const cliSettings = {
  url: setting.text(
    "GILLIAM_URL",
    "",
    "Control's address, like `http://127.0.0.1:7000`; empty: the state folder says",
  ),
  token: setting.text("GILLIAM_TOKEN", "", "The admin token; empty: from the state folder"),
  state: setting.text(
    "GILLIAM_STATE",
    "",
    "The state folder, like `--state`; empty: `/var/lib/gilliam` for root, `~/.local/state/gilliam` for others",
  ),
  debug: setting.text("GILLIAM_DEBUG", "", "Not empty: errors come with their stack"),
  browser: setting.text("BROWSER", "", "What `gilliam open` starts; empty: `xdg-open`"),
} as const;
