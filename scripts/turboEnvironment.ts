/** The environment for turbo: no telemetry, no update check, and colours only for a terminal. */
export const turboEnvironment = {
  ...process.env,
  TURBO_TELEMETRY_DISABLED: "1",
  TURBO_NO_UPDATE_NOTIFIER: "1",
  DO_NOT_TRACK: "1",
  ...(process.stdout.isTTY ? {} : { NO_COLOR: "1" })
}
