/**
 * Durations as options and the environment give them.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { durations } from "../InvalidSetting.ts"

/** Milliseconds of an option, or of what holds where it is not set. */
export const millis = (input: Duration.Input | undefined, fallback: Duration.Input): number =>
  Duration.toMillis(Duration.fromInputUnsafe(input ?? fallback))

/** A duration out of the environment; bounds in milliseconds. */
export const config = (
  name: string,
  minimum = 0,
  maximum = Number.POSITIVE_INFINITY
): Config.Config<Duration.Duration> =>
  Config.schema(
    Schema.DurationFromString.check(
      Schema.makeFilter(
        (duration) => Duration.toMillis(duration) >= minimum && Duration.toMillis(duration) <= maximum,
        { expected: durations(minimum, maximum) }
      )
    ),
    name
  )
