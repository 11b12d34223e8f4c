/** `pnpm bench [gateway|library] [options]`: one measurement, or both one after the other. */
import * as Gateway from "./gateway.ts"
import * as Library from "./library.ts"

const [which, ...options] = process.argv.slice(2)
if (which === "gateway") await Gateway.run(options)
else if (which === "library") await Library.run(options)
else if (which === undefined || which === "--quick") {
  const both = which === undefined ? options : [which, ...options]
  await Gateway.run(both)
  await Library.run(both)
} else {
  console.error("Usage: bench [gateway|library] [options]; bench gateway --help lists the options")
  process.exitCode = 2
}
