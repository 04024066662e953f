// SPDX-License-Identifier: Apache-2.0
//
// The command line. One file a subcommand; how a run ends is decided here and in `ExitStatus`.

import ArgumentParser

@main
struct RangelandTool: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rangeland",
    abstract: "An address space under a range lock, and recordings of real programs.",
    subcommands: [
      CompareCommand.self, RecordCommand.self, SimulateCommand.self, ImportCommand.self,
      ShowCommand.self, Bench.self,
      LockMapCommand.self,
      VerifyCommand.self,
    ])

  static func main() {
    Interruption.watch()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      ExitStatus.end(after: error, of: Self.self)
    }
  }
}
