/**
 * Durations as options give them.
 */
import * as Duration from "effect/Duration"

/** Milliseconds of an option, or of what holds where it is not set. */
export const millis = (input: Duration.Input | undefined, fallback: Duration.Input): number =>
  Duration.toMillis(Duration.fromInputUnsafe(input ?? fallback))
