// SPDX-License-Identifier: Apache-2.0
//
// Finds the recordings that come with the package.
//
// Mechanism: SwiftPM copies `Resources` beside the executable; a program that was moved away from
// there still finds them in a checkout it is started from. Foundation's `Bundle` is not used: it
// would trap where nothing is found.

import Glibc
import SystemPackage

/// The recordings that ship with Rangeland.
public enum ShippedRecordings {
  /// The one that `rangeland compare` takes when none is named.
  public static let fileName = "mariadb-connections.rangeland"

  /// A compiler: it changes fewer than 5,000 mappings, because its allocator keeps what it has, and faults 64,000 times.
  static let rustc = "rustc-codegen.rangeland"

  /// All of unmodified programs, that one first.
  public static let programs = [
    fileName, "java-threads.rangeland", "node-workers.rangeland", "python-threads.rangeland",
    rustc,
  ]

  /// Those of programs that were written to make calls: no figure of theirs says anything about programs.
  public static let written = ["every-call.rangeland"]

  /// The path of one; throws with the places that were searched.
  public static func path(_ fileName: String = fileName) throws(RecordingError) -> String {
    let places = candidates(fileName)
    for place in places where place.withPlatformString({ access($0, R_OK) }) == 0 {
      return place.string
    }
    throw RecordingError(
      .cannotOpen, file: fileName, at: .file,
      "the recording that ships with Rangeland is not at any of "
        + places.map(\.string).joined(separator: ", "),
      advice: "run from the checkout, or name a recording")
  }

  private static func candidates(_ fileName: String) -> [FilePath] {
    let inCheckout = "Sources/RangelandReplay/Resources/\(fileName)"
    var places: [FilePath] = []
    if let folder = executableFolder() {
      places.append(
        folder.appending("rangeland_RangelandReplay.resources/Resources/\(fileName)"))
    }
    places.append(FilePath(inCheckout))
    return places
  }

  private static func executableFolder() -> FilePath? {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX) + 1) { buffer in
      let length = readlink("/proc/self/exe", buffer.baseAddress!, Int(PATH_MAX))
      guard length > 0 else { return nil }
      buffer[length] = 0
      return FilePath(platformString: buffer.baseAddress!).removingLastComponent()
    }
  }
}
