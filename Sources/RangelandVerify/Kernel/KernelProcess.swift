// SPDX-License-Identifier: Apache-2.0
//
// The kernel's side: the helper process, started and asked.
//
// Guarantee: a helper that dies or hangs is an error with a reason, never a wait without end; it ends when this
//   object or this process ends.
// Mechanism: shared memory and futexes (KernelProtocol.h). Every wait is bounded and looks whether the
//   process still lives.

import CKernelProtocol
import Glibc
import SystemPackage

/// The running kernel, behind a process whose mappings are a script's alone. For one thread at a time.
public final class KernelProcess {
  let channel: UnsafeMutablePointer<kp_channel>
  let process: pid_t
  var sequence: UInt32 = 0
  private var isAlive = true
  /// Mappings outside the windows, known after the first reset.
  var outside: Int64?
  var baseline = VerifySizes()
  /// The files of the scripts, of both sides.
  let files: VerifyFiles

  /// The windows, by `VerifyWindow.rawValue`.
  public let windows: [AddressPair]

  public struct AddressPair: Sendable, Hashable {
    public var start: UInt64
    public var end: UInt64
  }

  /// Starts a helper.
  ///
  /// - Throws: when there is none, or it cannot run here: `PROCMAP_QUERY` needs Linux 6.11.
  public init() throws(VerifyError) {
    let path = try Self.helperPath()
    let files = try VerifyFiles()
    self.files = files
    let descriptor = kp_make_channel()
    if descriptor < 0 { throw VerifyError("memfd_create: \(Errno(rawValue: -descriptor))") }
    let memory = mmap(
      nil, MemoryLayout<kp_channel>.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
    guard let memory, memory != MAP_FAILED else {
      close(descriptor)
      throw VerifyError("the channel cannot be mapped: \(Errno(rawValue: errno))")
    }
    channel = memory.assumingMemoryBound(to: kp_channel.self)
    var child: pid_t = 0
    let status = path.withPlatformString { path in
      "\(descriptor)".withPlatformString { number in
        "\(getpid())".withPlatformString { parent in
          var arguments = [path, number, parent].map { UnsafeMutablePointer(mutating: $0) } + [nil]
          var environment: [UnsafeMutablePointer<CChar>?] = [nil]
          var actions = posix_spawn_file_actions_t()
          posix_spawn_file_actions_init(&actions)
          defer { posix_spawn_file_actions_destroy(&actions) }
          for file in files.inherited {
            posix_spawn_file_actions_adddup2(&actions, file.from, file.to)
          }
          return posix_spawn(&child, path, &actions, nil, &arguments, &environment)
        }
      }
    }
    close(descriptor)
    guard status == 0 else {
      munmap(memory, MemoryLayout<kp_channel>.size)
      throw VerifyError("\(path) cannot be started: \(Errno(rawValue: status))")
    }
    process = child
    var tries = 0
    while kp_wait(&channel.pointee.state, UInt32(KP_STARTING), 100) == UInt32(KP_STARTING) {
      tries += 1
      if tries > 300 || Self.hasEnded(child) { break }
    }
    windows = withUnsafeBytes(of: &channel.pointee.windows) {
      $0.bindMemory(to: kp_window.self).map { AddressPair(start: $0.start, end: $0.end) }
    }
    guard channel.pointee.state == UInt32(KP_READY) else {
      let message = withUnsafeBytes(of: &channel.pointee.message) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      end()
      throw VerifyError(
        "the kernel helper cannot run here: \(message.isEmpty ? "it ended" : message)")
    }
    try reset()
  }

  deinit { end() }

  /// Whether this kernel is too old to be the judge. A helper that is broken otherwise is no reason to skip.
  public static let lacksQuery: Bool = {
    do throws(VerifyError) {
      _ = try KernelProcess()
      return false
    } catch {
      return error.description.contains("PROCMAP_QUERY")
    }
  }()

  /// Ends the helper; again does nothing.
  private func end() {
    guard isAlive else { return }
    isAlive = false
    kill(process, SIGKILL)
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    munmap(channel, MemoryLayout<kp_channel>.size)
  }

  static func hasEnded(_ process: pid_t) -> Bool {
    var information = siginfo_t()
    return waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT) == 0
      && information.si_signo == SIGCHLD
  }

  /// Beside the executable, where SwiftPM builds it.
  private static func helperPath() throws(VerifyError) -> FilePath {
    let folder = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX) + 1) {
      let length = readlink("/proc/self/exe", $0.baseAddress!, Int(PATH_MAX))
      $0[max(0, length)] = 0
      return FilePath(platformString: $0.baseAddress!).removingLastComponent()
    }
    let path = folder.appending("KernelHelper")
    guard path.withPlatformString({ access($0, X_OK) }) == 0 else {
      throw VerifyError(
        "there is no \(path): the helper is built with the package and stays beside the program")
    }
    return path
  }

  /// The kernel's release.
  public static let release: String = {
    var name = utsname()
    uname(&name)
    return withUnsafeBytes(of: &name.release) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }()

  /// Whether `RssAnon` is exact: kernels before 6.17 tell a sum that lags behind.
  static let tellsExactResidency: Bool = {
    let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
    return numbers.count == 2 && (numbers[0], numbers[1]) >= (6, 17)
  }()
}
