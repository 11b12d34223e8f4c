const isLive = process.env["LLM_LIVE"] === "1"

/**
 * The environment for turbo: no telemetry, no update check, colours only for a terminal, and no key for tests
 * that did not ask for the real API.
 */
export const turboEnvironment = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(([name]) => isLive || !name.startsWith("OPENAI_"))
  ),
  TURBO_TELEMETRY_DISABLED: "1",
  TURBO_NO_UPDATE_NOTIFIER: "1",
  DO_NOT_TRACK: "1",
  ...(process.stdout.isTTY ? {} : { NO_COLOR: "1" })
}
