/** `pnpm bench [gateway|library|policies|ledger|telemetry|conversation] [options]`: one measurement, or the first two one after the other. */
import * as Conversation from "./conversation.ts"
import * as Gateway from "./gateway.ts"
import * as Ledger from "./ledger.ts"
import * as Library from "./library.ts"
import * as Policies from "./policies.ts"
import * as Telemetry from "./telemetry.ts"

const [which, ...options] = process.argv.slice(2)
if (which === "gateway") await Gateway.run(options)
else if (which === "library") await Library.run(options)
else if (which === "ledger") await Ledger.run(options)
else if (which === "policies") await Policies.run(options)
else if (which === "telemetry") await Telemetry.run(options)
else if (which === "conversation") await Conversation.run(options)
else if (which === undefined || which === "--quick") {
  const all = which === undefined ? options : [which, ...options]
  await Gateway.run(all)
  await Library.run(all)
} else {
  console.error(
    "Usage: bench [gateway|library|policies|ledger|telemetry|conversation] [options]; bench gateway --help lists the options"
  )
  process.exitCode = 2
}
