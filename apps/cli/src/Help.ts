/**
 * Help pages: examples first, then usage, flags, settings and exit codes.
 */
import * as Option from "effect/Option"
import type * as HelpDoc from "effect/cli/HelpDoc"
import * as ExitCode from "./ExitCode.ts"
import * as Price from "./Price.ts"
import * as Settings from "./Settings.ts"

type Row = readonly [left: string, right: string]

const section = (title: string, rows: ReadonlyArray<Row>): string => {
  const width = Math.max(...rows.map(([left]) => left.length)) + 2
  return `${title}\n${rows.map(([left, right]) => `  ${left.padEnd(width)}${right}`.trimEnd()).join("\n")}\n`
}

const flagRow = (flag: HelpDoc.FlagDoc): Row => [
  [...flag.aliases, `--${flag.name}`].join(", ") +
    (flag.type === "boolean" ? "" : ` <${flag.type.replace(/^<|>$/gu, "")}>`),
  Option.getOrElse(flag.description, () => "").replace(/ \(choices: [^)]*\)$/u, "")
]

/** Environment variables. */
const settings = section(
  "Settings (environment; flags win, an empty variable counts as unset)",
  Settings.table
)

/** Exit codes. */
const exitCodes = section(
  "Exit codes",
  ExitCode.table.map(([code, meaning]) => [String(code), meaning] as const)
)

/** One page of `oa help`. */
export const topic = (name: string): string => (name === "settings" ? settings : exitCodes)

/** The page of a command; the root's page lists settings and exit codes too. */
export const page = (doc: HelpDoc.HelpDoc): string => {
  const isRoot = (doc.commandPath?.length ?? 1) <= 1
  const parts = [`${doc.description}\n`]
  if (doc.examples !== undefined && doc.examples.length > 0) {
    parts.push(
      section(
        "Examples",
        doc.examples.map(({ command, description }) => [
          command,
          description === undefined ? "" : `# ${description}`
        ])
      )
    )
  }
  parts.push(
    section("Usage", [[isRoot ? 'oa "PROMPT" [flags of ask], or oa <command> [flags]' : doc.usage, ""]])
  )
  const commands = (doc.subcommands ?? []).flatMap((group) => group.commands)
  if (commands.length > 0) {
    parts.push(
      section("Commands", [
        ...commands.map((command): Row => [command.name, command.shortDescription ?? command.description]),
        [
          "help",
          "This page; oa help ask, oa help explain, oa help simulate, oa help settings, oa help exit-codes"
        ]
      ])
    )
  }
  if (doc.args !== undefined && doc.args.length > 0) {
    parts.push(
      section(
        "Arguments",
        doc.args.map((one): Row => [
          `${one.name}${one.variadic ? "…" : ""}`,
          Option.getOrElse(one.description, () => "")
        ])
      )
    )
  }
  if (doc.flags.length > 0) parts.push(section("Flags", doc.flags.map(flagRow)))
  if (doc.globalFlags !== undefined && doc.globalFlags.length > 0) {
    parts.push(section("Everywhere", doc.globalFlags.map(flagRow)))
  }
  parts.push(
    isRoot
      ? `${settings}\n${exitCodes}\nCosts are by the list prices of ${Price.asOf}; an unknown model is "unpriced".\n`
      : "oa help settings, oa help exit-codes: what else there is to know.\n"
  )
  return parts.join("\n")
}
