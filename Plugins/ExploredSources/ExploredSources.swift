// SPDX-License-Identifier: Apache-2.0
//
// Gives the target that uses it a copy of every source file of RangeLocks, with the planted mistakes woven in
// as run-time switches. Only the exploration tests use it: no product depends on what comes out.
//
// Mechanism: one command that runs the generator, with all its inputs and outputs named, so that the build
// system runs it again exactly when a source file or a list of mistakes has changed.

import Foundation
import PackagePlugin

@main
struct ExploredSources: BuildToolPlugin {
  /// By name: the build system would not notice a new file in a folder that it does not know.
  private static let lists = [
    "bounds", "directory", "waiting", "giving-up", "groups", "tasks", "whole", "observed",
    "stripes", "throughput", "semaphore",
  ]

  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    guard
      let explored = context.package.targets.first(where: { $0.name == "RangeLocks" }),
      let sources = explored.sourceModule?.sourceFiles(withSuffix: "swift").map(\.url)
    else {
      throw PluginFailure(description: "ExploredSources: the package has no target RangeLocks")
    }
    let folderOfLists = context.package.directoryURL.appending(path: "Tests/Exploration/Mistakes")
    let lists = Self.lists.map { folderOfLists.appending(component: $0 + ".mistakes") }
    let tool = try context.tool(named: "ExploredSourcesGenerator")
    let folder = context.pluginWorkDirectoryURL
    let outputs = (sources.map(\.lastPathComponent) + ["PlantedMistakes.swift"]).map {
      folder.appending(component: $0)
    }
    return [
      .buildCommand(
        displayName: "Copying RangeLocks for exploration",
        executable: tool.url,
        arguments: [folder.path] + (lists + sources).map(\.path),
        inputFiles: lists + sources,
        outputFiles: outputs)
    ]
  }
}

struct PluginFailure: Error, CustomStringConvertible {
  let description: String
}
