/**
 * Why the program is being stopped from outside.
 */
import * as Context from "effect/Context"

/** Ctrl-C, a polite kill, a reader of stdout that has gone, or a stdout that takes nothing (a full disk). */
export type Reason = "interrupted" | "terminated" | "unread" | "unwritable"

/** Asked by finalizers; `undefined` while nobody stops the program. */
export const Stop = Context.Reference<() => Reason | undefined>("@llm/cli/Stop", {
  defaultValue: () => () => undefined
})

/** The exit code of a program that was stopped. A reader that had enough is not a failure. */
export const exitCode: Record<Reason, 0 | 1 | 130 | 143> = {
  interrupted: 130,
  terminated: 143,
  unread: 0,
  unwritable: 1
}
